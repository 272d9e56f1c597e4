#!/usr/bin/env bash
# Packs the artifact of another version of Kubernetes from these sources, as build/versions/VERSION/k8s, from build/versions/VERSION/kubernetes,
# which build-component.sh makes. All that is no Kubernetes is taken from build/. Tests of upgrades start from it.
#
#   other-artifact.sh VERSION
source "$(dirname "$0")/lib.sh"
cd "$root"

version=${1:?usage: other-artifact.sh VERSION}
output=$build/versions/$version
tree=$output/tree
[[ -x $output/kubernetes ]] || fail "pack $version: there is no $output/kubernetes"

rm -rf "$tree"
mkdir -p "$tree/build"
git ls-files -z | xargs -0 cp --parents --preserve=timestamps --target-directory="$tree"
# A tree of links: what is done to it is not done to the packages here.
cp -R --link --preserve=timestamps "$root/node_modules" "$tree/node_modules"
ln -s "$build/tools" "$tree/build/tools"
printf '%s\n' "$version" >"$tree/build/.k8s-version"
# As new files, so that nothing is compiled again.
cp -R "$build/bin" "$tree/build/bin"
cp "$output/kubernetes" "$tree/build/bin/kubernetes"
K8S_VERSION=$version make -C "$tree" level=fast dist/artifacts/k8s
mv "$tree/dist/artifacts/k8s" "$output/k8s"
rm -rf "$tree"
