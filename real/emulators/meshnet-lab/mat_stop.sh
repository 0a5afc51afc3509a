#!/bin/sh
# Ends what mat_start.sh started: in one node, or, called without its id, in all of this machine.

address="$1"
id="$2"
folder="${MAT_FOLDER:-/etc/mat/meshnet-lab}"

for file in "$folder"/${id:-*}.pid; do
  [ -f "$file" ] || continue
  pid="$(cat "$file")"
  # Its number may be another program's by now.
  if tr '\0' ' ' < "/proc/$pid/cmdline" 2> /dev/null | grep -qF -- "${file%.pid}.sock"; then
    kill "$pid"
    timeout 15 tail --pid="$pid" -f /dev/null || kill -9 "$pid"
  fi
  rm -f "$file"
done

true
