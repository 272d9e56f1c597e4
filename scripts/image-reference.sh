#!/usr/bin/env bash
# Prints the name of an image that the build makes: image-reference.sh pause|coredns|busybox
source "$(dirname "$0")/lib.sh"

case ${1:-} in
  # A part of this distribution, so it carries its version.
  pause) version=${K8S_VERSION#v} ;;
  coredns) version=$(pinned coredns github.com/coredns/coredns) ;;
  busybox) version=1 ;;
  *) fail "name image ${1:-}: want pause, coredns or busybox" ;;
esac
printf 'k8s.local/%s:%s\n' "$1" "${version#v}"
