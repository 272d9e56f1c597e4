#!/usr/bin/env bash
# Prints which part of each room the tests have run, and fails when one has less than it must: of `make test`, or with --clusters of
# `make coverage`.
source "$(dirname "$0")/lib.sh"
cd "$root"
node --disable-warning=ExperimentalWarning scripts/coverage.ts build/coverage --floors "$@"
