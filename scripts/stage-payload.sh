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

git_state() {
  [[ -z $(git -C "$root" status --porcelain --untracked-files=no) ]] && printf clean || printf dirty
}

# lib/version.json, what `k8s --version` prints. The date is the commit's, so that one commit makes one file.
version_json() {
  local commit=unknown state=unknown date=1970-01-01T00:00:00Z sqlite
  if git -C "$root" rev-parse --verify --quiet HEAD >/dev/null; then
    commit=$(git -C "$root" rev-parse HEAD)
    state=$(git_state)
    date=$(TZ=UTC git -C "$root" log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd)
  fi
  sqlite=$(cd "$root" && node -p "require('better-sqlite3')(':memory:').prepare('select sqlite_version()').pluck().get()")
  cat <<JSON
{
  "gitVersion": "$K8S_VERSION+k8s.1",
  "gitCommit": "$commit",
  "gitTreeState": "$state",
  "buildDate": "$date",
  "k8sVersion": "$K8S_VERSION",
  "components": {
    "containerd": "$(pinned containerd github.com/containerd/containerd/v2)",
    "runc": "$(pinned runc github.com/opencontainers/runc)",
    "cni": "$(pinned cni github.com/containernetworking/plugins)",
    "coredns": "$(pinned coredns github.com/coredns/coredns)",
    "crictl": "$(pinned crictl github.com/kubernetes-sigs/cri-tools)",
    "node": "$(node --version)",
    "sqlite": "v$sqlite"
  },
  "images": {
    "pause": "$("$root/scripts/image-reference.sh" pause)",
    "coredns": "$("$root/scripts/image-reference.sh" coredns)"
  }
}
JSON
}

mkdir -p "$payload/bin" "$payload/lib"
stage "$build/bin/node" bin/node
stage "$build/bin/kubernetes" bin/kubernetes
link bin/kubernetes kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl
stage "$build/bin/containerd" bin/containerd
link bin/containerd ctr
stage "$build/bin/containerd-shim-runc-v2" bin/containerd-shim-runc-v2
stage "$build/bin/runc" bin/runc
stage "$build/bin/crictl" bin/crictl
stage "$build/bin/cni" bin/cni/cni
# The plugins' names are the table of components/cni/main.go.
# shellcheck disable=SC2046
link bin/cni/cni $(sed -n 's/^\t"\([a-z-]*\)": .*\.Main,$/\1/p' "$root/components/cni/main.go")
stage "$build/images/pause.tar.zst" images/pause.tar.zst
stage "$build/images/coredns.tar.zst" images/coredns.tar.zst
for bundle in "$build"/bundle/*.js; do
  [[ -e $bundle ]] && stage "$bundle" "lib/$(basename "$bundle")"
done
stage "$root/node_modules/better-sqlite3/prebuilds/linux-x64.node" lib/better_sqlite3.node
# The bundles are CommonJS wherever the tree lies, also below a package that is not.
printf '{"type":"commonjs"}\n' >"$payload/lib/package.json"
version_json >"$payload/lib/version.json.tmp"
mv "$payload/lib/version.json.tmp" "$payload/lib/version.json"
touch "$payload/.complete"
