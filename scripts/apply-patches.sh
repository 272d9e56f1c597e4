#!/usr/bin/env bash
# Makes build/kubernetes/VERSION/patched: a fresh copy of the vendored tree with patches/<minor>/*.patch applied in
# alphabetical order. A patch that does not apply fails with its name and the rejected hunk, and leaves the last good
# tree as it was. `Removes: PATH` in a patch's header takes a file or a package's folder out of the tree, without the
# thousands of lines that a diff of it would have.
#
#   apply-patches.sh [--check]     --check applies to a copy that is thrown away
source "$(dirname "$0")/lib.sh"
require_series

work=$build/kubernetes/$K8S_VERSION
mapfile -t patches < <(series)
identity=$(cd "$root" && cat "$work/module/.complete" scripts/lib.sh "${patches[@]}" | sha256sum)
stamp=$work/patched/.complete

if [[ ${1:-} != --check && -e $stamp && $(<"$stamp") == "$identity" ]]; then
  exit 0
fi

copy=$(mktemp -d "$work/patched.XXXXXX")
trap 'rm -rf "$copy"' EXIT
cp -r "$work/module/." "$copy"
rm "$copy/.complete"
number=0
for patch in "${patches[@]}"; do
  number=$((number + 1))
  say "applying patch $number of ${#patches[@]}: $patch"
  apply_patch "$patch" "$copy/vendor"
done

if [[ ${1:-} == --check ]]; then
  exit 0
fi
printf '%s\n' "$identity" >"$copy/.complete"
rm -rf "$work/patched"
mv "$copy" "$work/patched"
trap - EXIT
