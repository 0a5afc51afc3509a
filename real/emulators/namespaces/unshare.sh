#!/bin/bash
# A handover between namespaces without names, made by `unshare`, with `mat attach --ns pid:NUMBER`.
#
#     sudo ./unshare.sh

source "$(dirname "$(realpath "$0")")/network.sh"

remove() {
    kill "${netns[@]}"
}

for host in mn cn r; do
    unshare --net sleep infinity &
    netns[$host]=$!
    ref[$host]=pid:$!
    enter[$host]="nsenter --net=/proc/$!/ns/net"
    while [ "/proc/$!/ns/net" -ef /proc/self/ns/net ]; do
        sleep 0.1
    done
done
example
