#!/usr/bin/env bash
# Prints lib/version.json: what the artifact is built from, as `k8s --version` shows it. The date is the commit's, so that one
# commit makes one file.
source "$(dirname "$0")/lib.sh"

commit=unknown state=unknown date=1970-01-01T00:00:00Z
if git -C "$root" rev-parse --verify --quiet HEAD >/dev/null; then
  commit=$(git -C "$root" rev-parse HEAD)
  date=$(TZ=UTC git -C "$root" log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd)
  state=dirty
  [[ -n $(git -C "$root" status --porcelain --untracked-files=no) ]] || state=clean
fi
sqlite=$(cd "$root" && node -p "require('better-sqlite3')(':memory:').prepare('select sqlite_version()').pluck().get()")

# Each version of Kubernetes is built with the etcd that its own modules name, but for the default one, where we name it.
etcd_version() {
  local module=go.etcd.io/etcd/server/v3 theirs
  if [[ $(pinned kubernetes k8s.io/kubernetes) == "$K8S_VERSION" ]]; then
    pinned kubernetes "$module"
    return
  fi
  theirs=$(cd / && go mod download -json "k8s.io/kubernetes@$K8S_VERSION" | sed -n 's/.*"GoMod": "\(.*\)".*/\1/p')
  awk '$1 == "go.etcd.io/etcd/client/v3" {print $2; exit}' "$theirs"
}

cat <<EOF_JSON
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
    "coredns": "$(pinned addons github.com/coredns/coredns)",
    "metrics-server": "$(pinned addons sigs.k8s.io/metrics-server)",
    "local-path-provisioner": "$(pinned addons github.com/rancher/local-path-provisioner)",
    "cri-dockerd": "$(pinned cri-dockerd github.com/Mirantis/cri-dockerd)",
    "crictl": "$(pinned containerd sigs.k8s.io/cri-tools)",
    "etcd": "$(etcd_version)",
    "node": "$(node --version)",
    "sqlite": "v$sqlite"
  },
  "images": {
    "pause": "$("$root/scripts/image-reference.sh" pause)",
    "volume": "$("$root/scripts/image-reference.sh" volume)",
    "coredns": "$("$root/scripts/image-reference.sh" coredns)",
    "metrics-server": "$("$root/scripts/image-reference.sh" metrics-server)",
    "local-path-provisioner": "$("$root/scripts/image-reference.sh" local-path-provisioner)"
  }
}
EOF_JSON
