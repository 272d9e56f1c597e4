#!/usr/bin/env bash
# Prints the names of images that the build makes, one a line: image-reference.sh NAME...
source "$(dirname "$0")/lib.sh"

for name; do
  case $name in
    # A part of this distribution, so it carries its version.
    pause) version=${K8S_VERSION#v} ;;
    coredns) version=$(pinned addons github.com/coredns/coredns) ;;
    metrics-server) version=$(pinned addons sigs.k8s.io/metrics-server) ;;
    local-path-provisioner) version=$(pinned addons github.com/rancher/local-path-provisioner) ;;
    # Nodes of different versions make volumes for one provisioner.
    volume | busybox) version=1 ;;
    # Upstream's own name, so that one manifest serves with its image and with ours.
    traefik)
      printf 'docker.io/library/traefik:%s\n' "$(pinned traefik github.com/traefik/traefik/v3)"
      continue
      ;;
    *) fail "name image $name: want pause, volume, coredns, metrics-server, local-path-provisioner, busybox or traefik" ;;
  esac
  printf 'k8s.local/%s:%s\n' "$name" "${version#v}"
done
