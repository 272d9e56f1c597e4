#!/usr/bin/env bash
# Runs etcd's own tests for any server (go.etcd.io/etcd/tests/v3, common) against `k8s datastore`, as etcd does with its
# programs (the tag e2e), in a network of their own, since their ports are fixed, and with a /run of their own: the
# directories of tests with long names are too deep for sockets, which are below /run/k8s then.
#
#   run.sh WORKDIR [go test flags]
#
# WORKDIR keeps the sources and the compiled tests. In the copy clusters have one member; left out are tests of several
# members, of users and roles, and of what docs/datastore.md names as different.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
source "$here/../go-module.sh"
root=$(cd "$here/../../.." && pwd)
work=${1:?usage: run.sh WORKDIR [go test flags]}
shift
version=$(sed -n "s|^\t*go.etcd.io/etcd/server/v3 \(v[^ ]*\).*|\1|p" "$root/components/etcd/go.mod")
several_members='Member|NoQuorum|MoveLeader|WaitLeader|TestEndpointHashKV$'
different='Auth|User|Role|TestVerifyHashKVAfterCompactAndDefrag'

# The module stands alone here, not in etcd's repository.
edit() {
  sed -i -e '/^replace (/,/^)/d' -e '/^toolchain /d' "$1/go.mod"
  sed -i -E 's/ClusterSize: +[35],/ClusterSize: 1,/' "$1"/{common,framework/config,framework/e2e}/*.go
}

mkdir -p "$work/bin"
work=$(cd "$work" && pwd)
sources="$work/tests-$version"
copy_module "go.etcd.io/etcd/tests/v3@$version" "$sources" edit
(cd "$sources" && go test -mod=mod -vet=off -tags e2e -c -o "$work/common.test" ./common)

ln -sf "$root/build/peers/etcdctl" "$root/build/peers/etcdutl" "$work/bin"
cp "$here/etcd" "$work/bin/etcd"
ln -sfn "$root/build/payload" "$work/bin/payload"
export E2E_TEST_MINIMAL=true
cd "$sources/common"
# shellcheck disable=SC2016 # expanded by the inner shell
exec unshare --net --mount -- bash -c 'ip link set lo up && mount -t tmpfs tmpfs /run && exec "$@"' bash \
  "$work/common.test" -bin-dir "$work/bin" -test.timeout 15m -test.skip "$several_members|$different" "$@"
