#!/usr/bin/env bash
# Writes go.mod and go.sum for the multicall binary, pinned at one Kubernetes version.
#
#   scripts/pin-kubernetes.sh v1.37.1 components/kubernetes
#
# k8s.io/kubernetes replaces its staging modules by local folders, which holds only inside its own
# tree. A module that requires it has to name the published staging modules (k8s.io/api v0.37.1, ...)
# and takes every other pin over, so that what is built is what upstream tested together. etcd is the one that upstream tests
# with; components/kubernetes names a later one (`go get go.etcd.io/etcd/{server,etcdutl}/v3@VERSION`), and holds by `replace` what that would raise.
source "$(dirname "$0")/lib.sh"

version=${1:?usage: pin-kubernetes.sh VERSION DIRECTORY}
directory=${2:?usage: pin-kubernetes.sh VERSION DIRECTORY}

if [[ ! $version =~ ^v1\.[0-9]+\.[0-9]+$ ]]; then
  echo "cannot pin Kubernetes $version: want v1.MINOR.PATCH, such as v1.37.1" >&2
  exit 2
fi
staging=v0.${version#v1.}
cd "$directory"

upstream=$(cd / && go mod download -json "k8s.io/kubernetes@$version" | sed -n 's/.*"GoMod": "\(.*\)".*/\1/p')
pinned=$(mktemp ./go.mod.XXXXXX)
trap 'rm -f "$pinned"' EXIT
{
  echo 'module k8s/components/kubernetes'
  echo
  sed -n '/^go /p' "$upstream"
  echo
  sed -n '/^godebug /p' "$upstream"
  echo
  echo "require k8s.io/kubernetes $version"
  echo
  sed -n '/^require (/,/^)/p' "$upstream" | sed "s|^\(\tk8s.io/[a-z-]*\) v0.0.0\$|\1 $staging|"
} >"$pinned"
chmod 644 "$pinned"
mv "$pinned" go.mod
rm -f go.sum
# What restores etcd's snapshots is of the same release as etcd.
go mod edit -require="go.etcd.io/etcd/etcdutl/v3@$(sed -n 's|^\tgo.etcd.io/etcd/server/v3 \(v[^ ]*\).*|\1|p' go.mod)"
go mod tidy
