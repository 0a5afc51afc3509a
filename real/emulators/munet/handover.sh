#!/bin/bash
# A handover in munet: MN's link to net1 goes down, and that to net2 comes up.
#
#     sudo ./handover.sh         with `munet` on the PATH

source "$(dirname "$(realpath "$0")")/../common.sh"
export MAT=$mat MAT_FOLDER=$work

move() {
    ${enter[mn]} ip link set eth0 down
    ${enter[mn]} ip link set eth1 up
    ${enter[mn]} ip route replace default via 192.168.2.1
}

configure 192.168.9.1
munet --no-cli -c "$examples/munet/munet.yaml" -d "$work/munet" > "$work/munet.log" 2>&1 &
pids+=($!)
wait_for "a start of the nodes" test -s "$work/mn.log" -a -s "$work/cn.log"
for host in mn cn; do
    # Not `mucmd`: it enters their process namespaces, too, so that signals would not get through.
    enter[$host]="nsenter --net=/proc/$(cat "$work/munet/$host/nspid")/ns/net"
done
handover
