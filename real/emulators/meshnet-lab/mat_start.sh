#!/bin/sh
# MAT as a protocol of meshnet-lab: copied to its protocols/, `./software.py start mat` starts it.
#
# MAT_FOLDER, by default /etc/mat/meshnet-lab, has files named by the nodes' ids:
#   ID.toml      the node is a MAT node, with this configuration (docs/node.md)
#   ID.ims.toml  the node is a mapping server, with this configuration (docs/ims.md)
#   ID.sh        shell commands before that: addresses and routes, which the lab leaves to protocols
# Nodes without such files are left alone. ID.log, ID.sock and ID.pid are written beside them.
# MAT names the program, by default the `mat` of the PATH.

address="$1"
id="$2"
folder="${MAT_FOLDER:-/etc/mat/meshnet-lab}"
mat="${MAT:-mat}"

if [ -f "$folder/$id.pid" ] && kill -0 "$(cat "$folder/$id.pid")" 2> /dev/null; then
  echo "mat already runs on ${address} in ${id}"
  exit 0
fi

if [ -f "$folder/$id.sh" ]; then
  . "$folder/$id.sh"
fi

if [ -f "$folder/$id.ims.toml" ]; then
  set -- ims serve --config "$folder/$id.ims.toml" --set "ims.control='$folder/$id.sock'"
elif [ -f "$folder/$id.toml" ]; then
  set -- node run --config "$folder/$id.toml" --set "node.control='$folder/$id.sock'"
else
  exit 0
fi

if ! command -v "$mat" > /dev/null; then
  echo "there is no program $mat: name it, as MAT=/path/to/mat-mobility/.venv/bin/mat" >&2
  exit 1
fi

echo "start mat on ${address} in ${id}"
rm -f "$folder/$id.sock"
nohup "$mat" "$@" > "$folder/$id.log" 2>&1 < /dev/null &
echo $! > "$folder/$id.pid"

# Until it is ready, or has ended: then that is an error.
until [ -S "$folder/$id.sock" ]; do
  if ! kill -0 $! 2> /dev/null; then
    rm -f "$folder/$id.pid"
    cat "$folder/$id.log" >&2
    exit 1
  fi
  sleep 0.1
done
