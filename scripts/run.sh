#!/usr/bin/env bash
# Runs a single-node cluster in the foreground on build/run, with the example image of the README in it. The
# components' logs go to a file, so that the terminal shows how far the cluster is.
source "$(dirname "$0")/lib.sh"

[[ $(id -u) == 0 ]] || fail "start a cluster as $(id -un): containers need root. Run: sudo make run"
data=$build/run
log=$data/k8s.log
mkdir -p "$data/images"
cp -u "$build/images/busybox.tar.zst" "$data/images/"
echo "Starting on $data; the logs are in $log. Ctrl-C stops it."

# Ctrl-C comes here alone, as the daemon has a session of its own, and is passed on as what stops it at any time: bash has its
# background jobs pass over SIGINT until they say otherwise, and so the launcher would. Its pods go with it.
asked=false
trap 'asked=true; kill -TERM "$daemon" 2>/dev/null || :' INT TERM HUP
setsid "$root/dist/artifacts/k8s" --server-mode=single --data-dir="$data" --log-format=text --stop-pods 2>"$log" &
daemon=$!
# `wait` returns early when a signal came, with the signal; bash 5.2 says -1 of what has ended just then. The launcher ends
# by the signal itself.
status=0
while kill -0 "$daemon" 2>/dev/null; do
  status=0
  wait "$daemon" || status=$?
done
if $asked && ((status < 0 || status > 128)); then status=0; fi
if ((status != 0)); then
  tail -n 20 "$log" >&2
  echo "k8s ended with $status; the whole log is in $log" >&2
fi
exit "$status"
