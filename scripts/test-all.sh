#!/usr/bin/env bash
# Runs what takes too long for `make test`, one part after the other, and says at the end how each went. A part that fails spares
# the others. The last line is the row for docs/testing.md.
source "$(dirname "$0")/lib.sh"
cd "$root"

# For each series of patches beside the default one, the version that it is tried with.
versions=(v1.36.4 v1.34.4)

results=() failed=0
part() {
  local name=$1 started=$SECONDS
  shift
  say "== $name"
  if "$@"; then
    results+=("$name: passed, $(((SECONDS - started + 59) / 60)) min")
  else
    results+=("$name: failed, $(((SECONDS - started + 59) / 60)) min")
    failed=$((failed + 1))
  fi
}

# Every series of patches, applied and compiled with the Kubernetes that it is for, as far as that its programs answer.
other_versions() {
  local version binary
  for version in "${versions[@]}"; do
    [[ -d patches/$(minor_of "$version") && $version != "$K8S_VERSION" ]] || continue
    binary=$build/versions/$version/kubernetes
    K8S_VERSION=$version scripts/build-component.sh kubernetes "$binary" || return
    ln -sf kubernetes "$(dirname "$binary")/kubectl"
    "$(dirname "$binary")/kubectl" version --client | grep -F "$version+k8s.1" || return
  done
}

node_image() {
  make images ARCH=amd64 level=fast || return
  node node_modules/vitest/vitest.mjs run --project long test/long/node-image.test.ts
}

# From the newest of the versions before the default one.
upgrade() {
  scripts/other-artifact.sh "${versions[0]}" || return
  node node_modules/vitest/vitest.mjs run --project long test/long/upgrade.test.ts
}

# Compiled here and now, and by nothing else: half an hour of a processor.
end_to_end() {
  local nodes
  test/long/e2e/build.sh || return
  for nodes in 3 1; do
    E2E_NODES=$nodes node node_modules/vitest/vitest.mjs run --project long test/long/e2e.test.ts || return
  done
}

part 'a day of a busy cluster' node bench/datastore/replay-day.ts
part 'other versions of Kubernetes' other_versions
part 'storage tests of other versions' node node_modules/vitest/vitest.mjs run --project long test/long/storage.test.ts
part 'a machine that kubeadm joins' node node_modules/vitest/vitest.mjs run --project long test/long/kubeadm-join.test.ts
part 'a machine that is a Node by an image' node_image
part 'a kubelet on Docker' node node_modules/vitest/vitest.mjs run --project long test/long/docker.test.ts
part 'a cluster that is upgraded' upgrade
part 'an ingress' node node_modules/vitest/vitest.mjs run --project long test/long/ingress.test.ts
part "Kubernetes' end-to-end tests" end_to_end
part "Kubernetes' own unit tests" test/upstream-units.sh
part 'starts, compared' bench/start.sh --runs=1 --idle-runs=1
part 'the datastore, compared' bench/datastore.sh
part 'hollow nodes, compared' bench/scale.sh --nodes=20 --step=10

say
printf '%s\n' "${results[@]}"
say "| $(date -u +%F) | $(git rev-parse --short HEAD) | $((${#results[@]} - failed)) of ${#results[@]} parts passed |"
((failed == 0))
