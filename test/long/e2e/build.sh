#!/usr/bin/env bash
# Makes what the end-to-end suite of Kubernetes runs with, in build/e2e: the suite and the program that runs its cases side by
# side, and the images of its pods, as one archive, since there is no registry. What stands in for the base of upstream's images
# are packages of Debian.
source "$(dirname "$0")/../../../scripts/lib.sh"
here=$root/test/long/e2e out=$build/e2e
mkdir -p "$out"

command -v mmdebstrap >/dev/null || fail 'make the images of the suite: install the package mmdebstrap'
packages=bash,bind9-dnsutils,ca-certificates,curl,iperf,iproute2,net-tools,netcat-openbsd,nginx-light,procps,socat,wget
# Of what this script asks for now.
if [[ ! $out/base.tar -nt $here/build.sh ]]; then
  say 'collecting packages of Debian'
  mmdebstrap --quiet --format=tar --variant=minbase --include="$packages" bookworm "$out/base.tar.tmp"
  mv "$out/base.tar.tmp" "$out/base.tar"
fi

cd "$here"
export CGO_ENABLED=0
version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
flags='-s -w'
for pair in "gitVersion=$version" gitMajor=1 "gitMinor=$(cut -d. -f2 <<<"$version")"; do
  flags+=" -X k8s.io/component-base/version.$pair"
done
say 'compiling the suite'
go build -trimpath -ldflags '-s -w' -o "$out/agnhost" k8s.io/kubernetes/test/images/agnhost
go build -trimpath -ldflags '-s -w' -o "$out/nonewprivs" "$(go list -m -f '{{.Dir}}' k8s.io/kubernetes)/test/images/nonewprivs/nnp.go"
go build -trimpath -ldflags '-s -w' -o "$out/ginkgo" github.com/onsi/ginkgo/v2/ginkgo
go test -c -trimpath -ldflags "$flags" -o "$out/e2e.test" .
say 'packing the images'
node "$here/images.ts" "$(go list -m -f '{{.Dir}}' k8s.io/kubernetes)/test/images" "$build/bin" "$out"
