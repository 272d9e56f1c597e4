#!/usr/bin/env bash
# Prints which part of each room the tests have run (`make test` or `make coverage`), and fails when one has less than it must.
source "$(dirname "$0")/lib.sh"
cd "$root"
node --disable-warning=ExperimentalWarning scripts/coverage.ts build/coverage --floors
