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

# A terminal's Ctrl-C reaches the daemon by itself; this shell waits for its end.
trap : INT
trap 'kill -TERM "$daemon"' TERM
"$root/dist/artifacts/k8s" --server-mode=single --data-dir="$data" --log-format=text 2>"$log" &
daemon=$!
# `wait` returns early when a signal came.
while :; do
  status=0
  wait "$daemon" || status=$?
  kill -0 "$daemon" 2>/dev/null || break
done
if ((status != 0)); then
  tail -n 20 "$log" >&2
  echo "k8s ended with $status; the whole log is in $log" >&2
fi
exit "$status"
