#!/usr/bin/env bash
# Checks the form and the rules of the sources: TypeScript, shell and Go.
source "$(dirname "$0")/lib.sh"
cd "$root"

say "[1/4] oxlint"
node_modules/.bin/oxlint --type-aware --deny-warnings
say "[2/4] biome"
node_modules/.bin/biome format
say "[3/4] bash"
while IFS= read -r script; do
  bash -n "$script"
done < <(git ls-files '*.sh' .ci/run)
git ls-files -z '*.sh' .ci/run | xargs -0 shellcheck --external-sources --source-path=SCRIPTDIR
say "[4/4] gofmt"
unformatted=$(gofmt -l components test bench)
[[ -z $unformatted ]] || fail "accept the form of $unformatted: run gofmt -w"
