#!/usr/bin/env bash
# Regenerates what is generated from sources. With --check it changes nothing and fails when a file is out of date.
source "$(dirname "$0")/lib.sh"
cd "$root"

# File, and the program that prints it.
generated=(docs/configuration.md:src/config/docs.ts)

for pair in "${generated[@]}"; do
  file=${pair%%:*} generator=${pair#*:}
  printed=$(mktemp)
  trap 'rm -f "$printed"' EXIT
  node "$generator" >"$printed"
  if cmp -s "$printed" "$file"; then
    continue
  fi
  if [[ ${1:-} == --check ]]; then
    diff -u "$file" "$printed" >&2 || true
    fail "accept $file: it is not what $generator prints; run make generate"
  fi
  cp "$printed" "$file"
  say "generated $file"
done
