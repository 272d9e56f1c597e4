#!/usr/bin/env bash
# Checks what a build rests on: module pins and their checksums, the patch series, the npm lock file, generated files.
source "$(dirname "$0")/lib.sh"

case ${SKIP_VALIDATE:-} in
  '' | 0 | false) ;;
  *)
    say "validate: skipped, as SKIP_VALIDATE=$SKIP_VALIDATE"
    exit 0
    ;;
esac

checks=("module pins" "Kubernetes pins" "module checksums" "patches" "npm lock file" "generated files")
number=0
step() {
  number=$((number + 1))
  say "[$number/${#checks[@]}] ${checks[number - 1]}"
}

# Its series applies to its sources, in the place that `go mod vendor` gives them.
check_cri_dockerd() (
  module=github.com/Mirantis/cri-dockerd
  cd "$root/components/cri-dockerd"
  go mod download "$module"
  tree=$(mktemp -d)
  trap 'rm -rf "$tree"' EXIT
  mkdir -p "$tree/$(dirname "$module")"
  cp -r --no-preserve=mode "$(go list -m -f '{{.Dir}}' "$module")" "$tree/$module"
  for patch in $(patches_in cri-dockerd); do apply_patch "$patch" "$tree" "$module"; done
)

step # every go.mod is tidy: nothing unpinned, nothing unused
for directory in "$root"/{components,test/conformance,bench/datastore}/*/; do
  [[ -e $directory/go.mod ]] || continue
  # That of Traefik is tidy with what its build puts in place of gigabytes (components/traefik/lego), and go says so there.
  [[ $directory != */traefik/ ]] || continue
  (cd "$directory" && go mod tidy -diff) || fail "accept ${directory#"$root/"}go.mod: run go mod tidy in it"
done

step # the staging modules are those of the pinned Kubernetes
kubernetes=$(pinned kubernetes k8s.io/kubernetes)
for module in api apimachinery client-go component-base kubectl kubelet; do
  [[ $(pinned kubernetes "k8s.io/$module") == "v0.${kubernetes#v1.}" ]] ||
    fail "accept components/kubernetes/go.mod: k8s.io/$module is not of $kubernetes; run scripts/pin-kubernetes.sh"
done

step # what is in the module cache is what go.sum says
for directory in "$root"/components/{kubernetes,containerd,runc,cni,addons,cri-dockerd,etcd-file}; do
  (cd "$directory" && go mod verify >/dev/null) || fail "trust the module cache: run go clean -modcache"
done

step
"$root/scripts/download-k8s.sh"
"$root/scripts/apply-patches.sh" --check
check_cri_dockerd

step
# shellcheck disable=SC2016 # JavaScript
(cd "$root" && node --eval '
  const { readFileSync } = require("node:fs")
  const read = (name) => JSON.parse(readFileSync(name, "utf8"))
  const asked = read("package.json")
  const { packages } = read("package-lock.json")
  for (const kind of ["dependencies", "devDependencies"]) {
    for (const [name, version] of Object.entries(asked[kind])) {
      const locked = packages[`node_modules/${name}`]
      if (packages[""][kind][name] === version && locked?.version === version && locked.integrity) continue
      console.error(`cannot accept package-lock.json: ${name} ${version} is not locked; run npm install`)
      process.exitCode = 1
    }
  }') || exit 1

step
"$root/scripts/generate-code.sh" --check
