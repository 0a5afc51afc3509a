#!/bin/bash
# A handover between namespaces made by `ip netns`, with `mat attach --ns netns:NAME`.
#
#     sudo ./netns.sh

source "$(dirname "$(realpath "$0")")/network.sh"

remove() {
    local host
    for host in "${!netns[@]}"; do
        ip netns delete "${netns[$host]}"
    done
}

for host in mn cn r; do
    ip netns add "mat$$-$host"
    netns[$host]=mat$$-$host
    ref[$host]=netns:mat$$-$host
    enter[$host]="ip netns exec mat$$-$host"
done
example
