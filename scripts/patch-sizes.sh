#!/usr/bin/env bash
# Measures what each patch of K8S_VERSION's series takes off the binary and off the memory of an idle cluster, and writes
# it into patches/README.md. The binary is built once without patches and once more for each of them, and a bare cluster
# (bench/start/bare.sh, which has no kube-proxy) is started with each of these (as root). What was built stays, so that a
# second run measures only what is missing.
#
#   patch-sizes.sh                  all of it
#   patch-sizes.sh binary NUMBER    builds with the first NUMBER patches
#   patch-sizes.sh memory NUMBER    starts a cluster with that, and writes down its memory
#   patch-sizes.sh table            writes the table of what was measured
source "$(dirname "$0")/lib.sh"
require_series

work=$build/patch-sizes/$K8S_VERSION
mapfile -t patches < <(series)

# What was measured with the first NUMBER patches is kept as long as these do the same; their headers may change.
keep_or_forget() {
  local number=$1 directory=$work/$1 identity patch
  identity=$({
    cat "$root/components/kubernetes/go.sum"
    for patch in "${patches[@]:0:number}"; do sed -n -e '/^Removes: /p' -e '/^--- /,$p' "$root/$patch"; done
  } | sha256sum)
  if [[ ! -e $directory/.of || $(<"$directory/.of") != "$identity" ]]; then
    rm -rf "$directory"
    mkdir -p "$directory"
    printf '%s\n' "$identity" >"$directory/.of"
  fi
}

binary() {
  local number=$1 directory=$work/$1 tree patch
  [[ -e $directory/kubernetes ]] && return
  "$root/scripts/download-k8s.sh"
  tree=$(mktemp -d "$work/tree.XXXXXX")
  # shellcheck disable=SC2064 # now
  trap "rm -rf '$tree'" EXIT
  cp -r "$build/kubernetes/$K8S_VERSION/module/." "$tree"
  for patch in "${patches[@]:0:number}"; do apply_patch "$patch" "$tree/vendor"; done
  say "building with $number of ${#patches[@]} patches"
  (cd "$tree" && CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags='-s -w' -mod=vendor -o "$directory/kubernetes.tmp" .)
  mv "$directory/kubernetes.tmp" "$directory/kubernetes"
  rm -rf "$tree"
}

# The payload of the last build with another Kubernetes in it.
memory() {
  local number=$1 directory=$work/$1 payload
  [[ -e $directory/memory.json ]] && return
  [[ -e $build/payload/.complete ]] || fail "measure memory without build/payload: run make build-fast peers"
  payload=$directory/payload
  rm -rf "$payload"
  cp -al "$build/payload" "$payload"
  rm "$payload/bin/kubernetes"
  ln "$directory/kubernetes" "$payload/bin/kubernetes"
  say "starting with $number of ${#patches[@]} patches"
  node "$root/bench/start/memory.ts" "$payload" >"$directory/memory.json.tmp"
  mv "$directory/memory.json.tmp" "$directory/memory.json"
  rm -rf "$payload"
}

# Replaces what is between the two marks of the README.
table() {
  local readme=$root/patches/README.md
  node "$root/scripts/patch-sizes.ts" "$work" "${patches[@]}" >"$work/table.md"
  awk -v table="$work/table.md" '
    /<!-- end of sizes -->/ {hidden = 0}
    !hidden
    /<!-- sizes: / {hidden = 1; while ((getline line <table) > 0) print line}
  ' "$readme" >"$work/README.md"
  cp "$work/README.md" "$readme"
}

case ${1:-all} in
  binary | memory)
    keep_or_forget "${2:?usage: patch-sizes.sh $1 NUMBER}"
    "$1" "$2"
    ;;
  table) table ;;
  all)
    for number in $(seq 0 ${#patches[@]}); do
      keep_or_forget "$number"
      binary "$number"
      memory "$number"
    done
    table
    ;;
  *) fail "understand $1: scripts/patch-sizes.sh says what it takes" ;;
esac
