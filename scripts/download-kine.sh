#!/usr/bin/env bash
# Brings the sources of kine $KINE_VERSION and prints the directory of the module that builds it. kine is in no artifact: the
# datastore is measured against it, and its databases are imported. Another version than the pinned one gets a module of its
# own below build/, whose go.sum is written when it is first downloaded.
source "$(dirname "$0")/lib.sh"

pinned=$(pinned kine github.com/k3s-io/kine)
version=${KINE_VERSION:-$pinned}
[[ $version =~ ^v[0-9]+\.[0-9]+\.[0-9]+ ]] || fail "build KINE_VERSION=$version: want vMAJOR.MINOR.PATCH, such as $pinned"

module=$(component kine)
if [[ $version != "$pinned" ]]; then
  module=$build/kine/$version
  if [[ ! -e $module/.complete ]]; then
    rm -rf "$module"
    mkdir -p "$module"
    cp "$root"/components/kine/go.{mod,sum} "$module"
    (cd "$module" && go mod edit -require="github.com/k3s-io/kine@$version" && go mod tidy) >&2 || fail "download kine $version"
    touch "$module/.complete"
  fi
fi
(cd "$module" && go mod download) >&2
printf '%s\n' "$module"
