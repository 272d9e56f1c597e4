#!/usr/bin/env bash
# Stages build/payload: the tree that the artifact carries, and that K8S_PAYLOAD_DIR names in development. Files are
# hard links that replace their predecessors by a rename, so programs that run from the tree go on running.
source "$(dirname "$0")/lib.sh"
payload=$build/payload

stage() {
  local source=$1 target=$payload/$2
  [[ $source -ef $target ]] && return
  mkdir -p "$(dirname "$target")"
  ln -f "$source" "$target.tmp" 2>/dev/null || cp "$source" "$target.tmp"
  mv -f "$target.tmp" "$target"
}

link() {
  local target=$1 name
  shift
  for name in "$@"; do
    ln -sfn "$(basename "$target")" "$payload/$(dirname "$target")/$name"
  done
}

mkdir -p "$payload/bin" "$payload/lib"
stage "$build/bin/node" bin/node
stage "$build/bin/kubernetes" bin/kubernetes
link bin/kubernetes kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl etcd etcd-restore
stage "$build/bin/containerd" bin/containerd
link bin/containerd ctr crictl
stage "$build/bin/containerd-shim-runc-v2" bin/containerd-shim-runc-v2
stage "$build/bin/runc" bin/runc
stage "$build/bin/etcd-file" bin/etcd-file
stage "$build/bin/cri-dockerd" bin/cri-dockerd
stage "$build/bin/cni" bin/cni/cni
# The plugins' names are the table of components/cni/main.go.
# shellcheck disable=SC2046
link bin/cni/cni $(sed -n 's/^\t"\([a-z-]*\)": .*\.Main,$/\1/p' "$root/components/cni/main.go")
images=(pause addons)
for image in "${images[@]}"; do stage "$build/images/$image.tar.zst" "images/$image.tar.zst"; done
# Of an earlier checkout.
for image in "$payload"/images/*; do
  [[ " ${images[*]} " == *" $(basename "$image" .tar.zst) "* ]] || rm "$image"
done
for bundle in "$build"/bundle/*.js; do
  [[ -e $bundle ]] && stage "$bundle" "lib/$(basename "$bundle")"
done
stage "$root/node_modules/better-sqlite3/prebuilds/linux-x64.node" lib/better_sqlite3.node
# Of gcc's run-time libraries the one that minimal systems lack.
stage "$(realpath "$(gcc -print-file-name=libatomic.so.1)")" lib/libatomic.so.1
printf '{"type":"commonjs"}\n' >"$payload/lib/package.json"
stage "$build/version.json" lib/version.json
stage "$root/src/lab/machine.sh" lib/machine.sh
stage "$root/standalone.yaml" lib/standalone.yaml
touch "$payload/.complete"
