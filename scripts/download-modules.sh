#!/usr/bin/env bash
# Downloads the Go modules of the components beside Kubernetes; go.sum holds their checksums.
source "$(dirname "$0")/lib.sh"

components=(containerd runc cni addons cri-dockerd etcd-file)
number=0
for component in "${components[@]}"; do
  number=$((number + 1))
  say "[$number/${#components[@]}] modules of $component"
  (cd "$root/components/$component" && go mod download)
done
