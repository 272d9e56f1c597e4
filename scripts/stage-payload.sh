#!/usr/bin/env bash
# Stages build/payload: the tree that the artifact carries and that the daemon finds by K8S_PAYLOAD_DIR. Files are hard
# links where the file system allows it.
#
#   stage-payload.sh core     bin/node, lib/    (what runs before anything is unpacked)
#   stage-payload.sh rest     everything else
source "$(dirname "$0")/lib.sh"
