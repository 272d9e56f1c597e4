#!/usr/bin/env bash
# Brings the sources of Kubernetes $K8S_VERSION: build/kubernetes/VERSION/module holds the sources of components/kubernetes, pinned at
# that version, and the vendored, unpatched tree. Go checks every module against go.sum.
source "$(dirname "$0")/lib.sh"
require_series

pinned=$root/components/kubernetes
work=$build/kubernetes/$K8S_VERSION
stamp=$work/module/.complete
identity=$(cat "$pinned"/{go.mod,go.sum,main.go,images/*.go} | sha256sum)
if [[ -e $stamp && $(<"$stamp") == "$identity" ]]; then
  exit 0
fi

say "downloading Kubernetes $K8S_VERSION"
mkdir -p "$work"
rm -rf "$work/module" "$work/module.tmp"
mkdir "$work/module.tmp"
cp -R "$pinned"/{main.go,images} "$work/module.tmp"
if [[ $(pinned kubernetes k8s.io/kubernetes) == "$K8S_VERSION" ]]; then
  cp "$pinned/go.mod" "$pinned/go.sum" "$work/module.tmp"
else
  "$root/scripts/pin-kubernetes.sh" "$K8S_VERSION" "$work/module.tmp"
fi
(cd "$work/module.tmp" && go mod vendor)
printf '%s\n' "$identity" >"$work/module.tmp/.complete"
mv "$work/module.tmp" "$work/module"
