#!/usr/bin/env bash
# Makes build/kubernetes/VERSION/patched: a fresh copy of the vendored tree with patches/<minor>/*.patch applied in
# alphabetical order. A patch that does not apply fails with its name and the rejected hunk, and leaves the last good
# tree as it was.
#
#   apply-patches.sh [--check]     --check applies to a copy that is thrown away
source "$(dirname "$0")/lib.sh"
require_series

work=$build/kubernetes/$K8S_VERSION
series=$root/patches/$(minor_of "$K8S_VERSION")
shopt -s nullglob
patches=("$series"/*.patch)
identity=$(cat "$work/module/.complete" "${patches[@]}" | sha256sum)
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
  say "applying patch $number of ${#patches[@]}: ${patch#"$root/"}"
  # --fuzz=0: a hunk whose surroundings changed upstream is looked at by a person.
  if ! report=$(patch --strip=1 --fuzz=0 --batch --forward --reject-file="$copy/rejected" --directory="$copy/vendor" <"$patch" 2>&1); then
    report=${report//" -- saving rejects to file $copy/rejected"/}
    printf 'cannot apply %s to Kubernetes %s:\n%s\n' "${patch#"$root/"}" "$K8S_VERSION" "$report" >&2
    [[ -s $copy/rejected ]] && cat "$copy/rejected" >&2
    exit 1
  fi
done

if [[ ${1:-} == --check ]]; then
  exit 0
fi
printf '%s\n' "$identity" >"$copy/.complete"
rm -rf "$work/patched"
mv "$copy" "$work/patched"
trap - EXIT
