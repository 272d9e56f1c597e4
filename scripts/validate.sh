#!/usr/bin/env bash
# Checks what a build rests on: module pins and their checksums, the patch series, the npm lock file, generated files.
source "$(dirname "$0")/lib.sh"

checks=("module pins" "Kubernetes pins" "module checksums" "patches" "npm lock file" "generated files")
number=0
step() {
  number=$((number + 1))
  say "[$number/${#checks[@]}] ${checks[number - 1]}"
}

step # every go.mod is tidy: nothing unpinned, nothing unused
for directory in "$root"/components/*/; do
  [[ -e $directory/go.mod ]] || continue
  (cd "$directory" && go mod tidy -diff) || fail "accept ${directory#"$root/"}go.mod: run go mod tidy in it"
done

step # the staging modules are those of the pinned Kubernetes
kubernetes=$(pinned kubernetes k8s.io/kubernetes)
for module in api apimachinery client-go component-base kubectl kubelet; do
  [[ $(pinned kubernetes "k8s.io/$module") == "v0.${kubernetes#v1.}" ]] ||
    fail "accept components/kubernetes/go.mod: k8s.io/$module is not of $kubernetes; run scripts/pin-kubernetes.sh"
done

step # what is in the module cache is what go.sum says
for directory in "$root"/components/{kubernetes,containerd,runc,cni,coredns,crictl}; do
  (cd "$directory" && go mod verify >/dev/null) || fail "trust the module cache: run go clean -modcache"
done

step
"$root/scripts/download-k8s.sh"
"$root/scripts/apply-patches.sh" --check

step
(cd "$root" && npm ls --package-lock-only --all >/dev/null) || fail "accept package-lock.json: run npm install"
(cd "$root" && npm ci --dry-run --no-audit --no-fund --loglevel=error >/dev/null) ||
  fail "accept package-lock.json: it is not in step with package.json; run npm install"

step
"$root/scripts/generate-code.sh" --check
