#!/usr/bin/env bash
# Runs a single-node cluster in the foreground on build/run, with the example image of the README in it.
source "$(dirname "$0")/lib.sh"

[[ $(id -u) == 0 ]] || fail "start a cluster as $(id -un): containers need root. Run: sudo make run"
data=$build/run
mkdir -p "$data/images"
cp -u "$build/images/busybox.tar.zst" "$data/images/"
exec "$root/dist/artifacts/k8s" --server-mode=single --data-dir="$data"
