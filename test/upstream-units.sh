#!/usr/bin/env bash
# Runs upstream's own unit tests of the packages that patches/ changes, and of those next to them, on the patched sources.
# What a patch changes on purpose is changed in upstream's tests too, by patches/MINOR/tests/.
#
#   upstream-units.sh [PACKAGE...]     by default all of them
source "$(dirname "$0")/../scripts/lib.sh"
require_series

work=$build/upstream-units/$K8S_VERSION
module=$build/kubernetes/$K8S_VERSION/module

# Not changed themselves, but what they do rests on what is.
neighbours=(
  k8s.io/kubernetes/pkg/controller/volume/{attachdetach,expand,persistentvolume}
  k8s.io/kubernetes/pkg/kubelet/volumemanager/{cache,populator,reconciler}
  k8s.io/kubernetes/pkg/proxy/{conntrack,iptables,metaproxier,nftables}
  k8s.io/kubernetes/pkg/volume/{configmap,csi,downwardapi,emptydir,hostpath,local,nfs,projected,secret,util}
)

# The files that the series changes or adds, and what it removes.
changed() {
  local patch
  series | while read -r patch; do sed -n 's/^+++ b\///p' "$root/$patch"; done
}
removed() {
  local patch
  series | while read -r patch; do sed -n -e '/^--- /q' -e 's/^Removes: //p' "$root/$patch"; done
}

# Lines "MODULE VERSION" of the modules with a file among those that standard input names.
owners() {
  local path
  while read -r path; do
    awk -v path="$path" '$1 == "#" && index(path "/", $2 "/") == 1 {print $2, $3}' "$module/vendor/modules.txt"
  done | sort -u
}

# A copy of each module that is patched, whole and with its tests, takes the place of the published one.
make_tree() {
  local name version patch
  rm -rf "$work"
  mkdir -p "$work/tree"
  cp "$module"/{go.mod,go.sum,main.go} "$work"
  while read -r name version; do
    mkdir -p "$(dirname "$work/tree/$name")"
    cp -r --no-preserve=mode "$(cd "$work" && go mod download -json "$name@$version" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')" \
      "$work/tree/$name"
  done < <({ changed && removed; } | owners)
  for patch in $(series) $(cd "$root" && compgen -G "patches/$(minor_of "$K8S_VERSION")/tests/*.patch"); do
    say "applying $patch"
    apply_patch "$patch" "$work/tree"
  done
  while read -r name version; do
    if [[ -e $work/tree/$name ]]; then (cd "$work" && go mod edit -replace "$name=./tree/$name"); fi
  done < <(changed | owners)
}

"$root/scripts/download-k8s.sh"
make_tree
packages=("$@")
if ((${#packages[@]} == 0)); then
  mapfile -t packages < <({ changed | xargs -n 1 dirname && printf '%s\n' "${neighbours[@]}"; } | sort -u)
fi
say "testing ${#packages[@]} packages of Kubernetes $K8S_VERSION"
# Without cgo and with -trimpath, what the build of the binary compiled is used again. Upstream vets its own code.
cd "$work" && CGO_ENABLED=0 go test -trimpath -mod=mod -vet=off "${packages[@]}"
