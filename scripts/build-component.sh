#!/usr/bin/env bash
# Builds one component into a file, written under a temporary name and renamed when it is whole.
#
#   [ARCH=amd64|arm64|arm] build-component.sh NAME OUTPUT
#
# ARCH has Go's names (arm is v7), and is for programs in Go alone. All are static and stripped. Versions come from the go.mod
# files, so that a pin is changed in one place.
source "$(dirname "$0")/lib.sh"

name=${1:?usage: build-component.sh NAME OUTPUT}
output=$(realpath -m "${2:?usage: build-component.sh NAME OUTPUT}")
mkdir -p "$(dirname "$output")"
temporary=$output.tmp
work=
trap 'rm -rf "$temporary" "$work"' EXIT

# go_build DIRECTORY PACKAGE LDFLAGS [go build flags]
go_build() {
  local directory=$1 package=$2 ldflags=$3
  shift 3
  local arch=${ARCH:-amd64}
  [[ $arch =~ ^(amd64|arm64|arm)$ ]] || fail "build for ARCH=$arch: want amd64, arm64 or arm"
  [[ $(go env GOVERSION) == "go$(pinned_go)" ]] || fail "build with $(go env GOVERSION): run make setup, which brings Go $(pinned_go)"
  (cd "$directory" && GOARCH=$arch GOARM=7 go build -trimpath -buildvcs=false -ldflags "-s -w $ldflags" -o "$temporary" "$@" "$package")
}

# vendored COMPONENT [PACKAGE...]: makes a copy of its sources, and its own packages', with those of its modules in $work, to be
# changed before they are compiled.
vendored() {
  local package
  work=$(mktemp -d "$build/$1.XXXXXX")
  cp "$(component "$1")"/{go.mod,go.sum,*.go} "$work"
  for package in "${@:2}"; do cp -R "$(component "$1")/$package" "$work"; done
  (cd "$work" && go mod vendor)
}

# importable PACKAGE DIRECTORY: makes a main package of a vendored copy one that can be imported, with Main() for main().
importable() {
  sed -i -e "s/^package main$/package $1/" -e 's/^func main() {$/func Main() {/' "$2"/*.go
}

# The project's last commit on the sources of the Kubernetes build names what `kubectl version` and the Nodes report. It
# is not HEAD: a commit elsewhere would link 150 MB again for nothing.
kubernetes_ldflags() {
  local sources=(components/kubernetes "patches/$(minor_of "$K8S_VERSION")" scripts/build-component.sh) commit=unknown date=1970-01-01T00:00:00Z
  local state=clean major minor pair package flags=''
  if git -C "$root" rev-parse --is-inside-work-tree >/dev/null 2>&1; then
    commit=$(git -C "$root" log -1 --format=%H -- "${sources[@]}")
    date=$(TZ=UTC git -C "$root" log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd -- "${sources[@]}")
    [[ -z $(git -C "$root" status --porcelain -- "${sources[@]}") ]] || state=dirty
  fi
  IFS=. read -r major minor _ <<<"${K8S_VERSION#v}"
  for pair in "gitVersion=$K8S_VERSION+k8s.1" "gitMajor=$major" "gitMinor=$minor" "gitCommit=$commit" \
    "gitTreeState=$state" "buildDate=$date"; do
    for package in k8s.io/client-go/pkg/version k8s.io/component-base/version; do
      flags+=" -X $package.$pair"
    done
  done
  printf '%s' "$flags"
}

# build_patched PACKAGE [go build flags]
build_patched() {
  local package=$1
  shift
  "$root/scripts/download-k8s.sh"
  "$root/scripts/apply-patches.sh"
  CGO_ENABLED=0 go_build "$build/kubernetes/$K8S_VERSION/patched" "$package" "$(kubernetes_ldflags)" -mod=vendor "$@"
}

build_kubernetes() { build_patched .; }

# What images of nodes run.
build_kubelet() { build_patched ./images -tags kubelet; }
build_kubelet-kubeadm() { build_patched ./images -tags kubelet,kubeadm; }
build_kube-proxy() { build_patched ./images -tags kubeproxy; }

# vendored_crictl: makes the copy in which crictl is. It names systems by constants of its tests, with which it would bring a test
# framework of 2 MB, and warns, with every command, that it has no configuration file.
crictl_module=sigs.k8s.io/cri-tools
vendored_crictl() {
  vendored containerd
  local tools=$work/vendor/$crictl_module
  sed -i 's/logrus\.Warnf("Config %q does not exist/logrus.Debugf("Config %q does not exist/' "$tools/pkg/common/config.go"
  sed -i -e '/cri-tools\/pkg\/framework"$/d' -e 's/framework\.OSWindows/"windows"/' "$tools"/cmd/crictl/*.go
  crictl_ldflags="-X $crictl_module/pkg/version.Version=$(pinned containerd "$crictl_module")"
}

# crictl is a main package.
build_containerd() {
  local version
  version=$(pinned containerd github.com/containerd/containerd/v2)
  vendored_crictl
  importable crictl "$work/vendor/$crictl_module/cmd/crictl"
  CGO_ENABLED=0 go_build "$work" . \
    "-X github.com/containerd/containerd/v2/version.Version=$version $crictl_ldflags" -mod=vendor
}

# For images, which have no containerd.
build_crictl() {
  vendored_crictl
  CGO_ENABLED=0 go_build "$work" "$crictl_module/cmd/crictl" "$crictl_ldflags" -mod=vendor
}

build_containerd-shim-runc-v2() {
  local version
  version=$(pinned containerd github.com/containerd/containerd/v2)
  # no_grpc: upstream's own tag for the shim, which talks ttrpc only (cmd/containerd-shim-runc-v2, Makefile).
  CGO_ENABLED=0 go_build "$(component containerd)" github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2 \
    "-X github.com/containerd/containerd/v2/version.Version=$version" -tags no_grpc
}

build_runc() {
  # runc joins namespaces in C before Go's runtime starts, and loads seccomp filters with libseccomp.
  CGO_ENABLED=1 go_build "$(component runc)" github.com/opencontainers/runc \
    "-linkmode external -extldflags -static" -tags 'seccomp netgo osusergo urfave_cli_no_docs'
}

# Upstream's plugins are programs.
build_cni() {
  local version plugin package
  version=$(pinned cni github.com/containernetworking/plugins)
  vendored cni flannel
  for plugin in "$work"/vendor/github.com/containernetworking/plugins/plugins/{ipam,main,meta}/*; do
    package=$(basename "$plugin")
    importable "${package//-/}" "$plugin"
  done
  CGO_ENABLED=0 go_build "$work" . \
    "-X github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion=$version" -mod=vendor
}

# The provisioner of local volumes is a main package, as the plugins of CNI are, and has a patch and a file of ours.
build_addons() {
  local version provisioner
  version=$(pinned addons github.com/rancher/local-path-provisioner)
  vendored addons
  provisioner=$work/vendor/github.com/rancher/local-path-provisioner
  patch --strip=1 --fuzz=0 --batch --forward --no-backup-if-mismatch --quiet --directory="$provisioner" \
    <"$(component addons)/localpath/provisioner.patch" || fail "apply components/addons/localpath/provisioner.patch"
  importable localpathprovisioner "$provisioner"
  cp "$(component addons)"/localpath/*.go "$provisioner"
  CGO_ENABLED=0 go_build "$work" . "-X github.com/rancher/local-path-provisioner.VERSION=$version" -mod=vendor -tags grpcnotrace
}

build_cri-dockerd() {
  local module=github.com/Mirantis/cri-dockerd patch
  vendored cri-dockerd
  for patch in $(patches_in cri-dockerd); do apply_patch "$patch" "$work/vendor" "$module"; done
  CGO_ENABLED=0 go_build "$work" . "-X $module/cmd/version.Version=$(pinned cri-dockerd "$module" | sed s/^v//)
    -X $module/cmd/version.GitCommit=patched" -mod=vendor
}

build_etcd-file() { CGO_ENABLED=0 go_build "$(component etcd-file)" . ''; }

build_pause() {
  gcc -std=c11 -Os -Wall -Wextra -Werror -static -s -o "$temporary" "$(component pause)"/*.c
}

build_launcher() {
  gcc -std=gnu11 -O2 -Wall -Wextra -Werror -Wno-format-truncation -static -s -o "$temporary" "$(component launcher)"/*.c \
    -lzstd -pthread
}

# Into the current directory; apt verifies it by the signed list.
debian_download() { apt-get download -qq -o APT::Sandbox::User=root busybox-static; }

# From the package that Debian has signed, and not whatever the machine has for it.
build_busybox() {
  local downloads=$build/downloads
  mkdir -p "$downloads"
  rm -f "$downloads"/busybox-static_*.deb
  (cd "$downloads" && { debian_download || { apt-get update -qq && debian_download; }; }) ||
    fail "download the Debian package busybox-static"
  dpkg-deb --fsys-tarfile "$downloads"/busybox-static_*.deb | tar -xO ./bin/busybox >"$temporary"
  chmod 755 "$temporary"
}

build_etcd() { CGO_ENABLED=0 go_build "$(component etcd)" go.etcd.io/etcd/server/v3 ''; }
build_etcdctl() { CGO_ENABLED=0 go_build "$(component etcd)" go.etcd.io/etcd/etcdctl/v3 ''; }
build_etcdutl() { CGO_ENABLED=0 go_build "$(component etcd)" go.etcd.io/etcd/etcdutl/v3 ''; }

# Upstream's, unpatched, as another machine has it.
build_kubeadm() {
  local version pair flags=''
  version=$(pinned kubeadm k8s.io/kubernetes)
  for pair in "gitVersion=$version" gitMajor=1 "gitMinor=$(cut -d. -f2 <<<"$version")"; do
    flags+=" -X k8s.io/component-base/version.$pair"
  done
  CGO_ENABLED=0 go_build "$(component kubeadm)" k8s.io/kubernetes/cmd/kubeadm "$flags"
}

# Upstream's hollow kubelets, of which several share a process.
build_kubemark() {
  vendored kubemark
  apply_patch components/kubemark/shared-process.patch "$work/vendor/k8s.io/kubernetes"
  CGO_ENABLED=0 go_build "$work" . '' -mod=vendor
}

# Upstream's, as a machine has it that runs Docker; its sources are a module whose requirements stand in another file.
build_dockerd() {
  local module=github.com/docker/docker version
  version=$(pinned dockerd "$module" | sed 's/^v//; s/+.*//')
  CGO_ENABLED=0 go_build "$(component dockerd)" "$module/cmd/dockerd" "-X $module/dockerversion.Version=$version" \
    -tags 'netgo osusergo static_build exclude_graphdriver_btrfs exclude_graphdriver_zfs'
}

# Traefik, with the list of providers for challenges by DNS put in place of lego's (components/traefik/lego says why), and without its
# dashboard, whose files are in no module.
build_traefik() {
  local version lego source
  version=$(pinned traefik github.com/traefik/traefik/v3)
  lego=github.com/go-acme/lego/v5
  source=$(go mod download -json "$lego@$(pinned traefik "$lego")" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
  [[ -d $source ]] || fail "download $lego"
  work=$(mktemp -d "$build/traefik.XXXXXX")
  cp -r "$(component traefik)"/{go.mod,go.sum,ext} "$work"
  cp -r "$source" "$work/lego"
  chmod -R u+w "$work/lego"
  cp "$(component traefik)/lego/providers.go" "$work/lego/providers/dns/zz_gen_dns_providers.go"
  (cd "$work" && go mod edit -replace "$lego=./lego")
  CGO_ENABLED=0 go_build "$work" github.com/traefik/traefik/v3/cmd/traefik \
    "-X github.com/traefik/traefik/v3/pkg/version.Version=${version#v}"
}

build_kine() {
  local module
  module=$("$root/scripts/download-kine.sh")
  # As upstream's scripts/build: the C driver of SQLite, which is faster than the Go one.
  CGO_ENABLED=1 CGO_CFLAGS='-O2 -DSQLITE_USE_ALLOCA=1' go_build "$module" github.com/k3s-io/kine \
    "-linkmode external -extldflags -static" -tags nats
}

declare -F "build_$name" >/dev/null || fail "build $name: scripts/build-component.sh does not know it"
"build_$name"
mv "$temporary" "$output"
