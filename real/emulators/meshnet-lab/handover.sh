#!/bin/bash
# A handover in meshnet-lab: the link of MN to one node is replaced by a link to another.
#
#     sudo MESHNET_LAB=/path/to/meshnet-lab ./handover.sh
#
#     mn ── a ── core ── cn      before
#           b ── core            core is IMS and DNS as well
#
#     mn ── b                    after
#
# It copies mat_start.sh and mat_stop.sh into the protocols/ of meshnet-lab.

source "$(dirname "$(realpath "$0")")/../common.sh"
lab=${MESHNET_LAB:?the folder of meshnet-lab, with its network.py}
export MAT=$mat MAT_FOLDER=$work
for host in mn cn; do
    enter[$host]="ip netns exec ns-$host"
done

remove() {
    "$lab/software.py" stop mat
    "$lab/network.py" apply "$work/none.json"
}

links() {
    printf '{"links": ['
    printf '{"source": "%s", "target": "%s"},' "$@" | sed 's/,$//'
    printf ']}\n'
}

# All nodes hear their neighbours on one interface, so routers must not tell of shorter ways.
host() {
    cat << EOF
ip address add 192.168.$1/24 dev uplink
ip route add default via 192.168.$2
EOF
}
router() {
    local address
    for address in "$@"; do
        echo "ip address add $address/24 dev uplink"
    done
    echo "sysctl -qw net.ipv4.ip_forward=1"
    echo "sysctl -qw net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.uplink.send_redirects=0"
}

move() {
    "$lab/network.py" apply "$work/after.json"
    ${enter[mn]} ip address flush dev uplink
    ${enter[mn]} ip address add 192.168.2.10/24 dev uplink
    ${enter[mn]} ip route add default via 192.168.2.1
}

configure 192.168.9.1
mv "$work/ims.toml" "$work/core.ims.toml"
host 1.10 1.1 > "$work/mn.sh"
host 9.10 9.1 > "$work/cn.sh"
router 192.168.1.1 192.168.11.2 > "$work/a.sh"
router 192.168.2.1 192.168.12.2 > "$work/b.sh"
router 192.168.9.1 192.168.11.1 192.168.12.1 > "$work/core.sh"
echo "ip route add default via 192.168.11.1" >> "$work/a.sh"
echo "ip route add default via 192.168.12.1" >> "$work/b.sh"
echo "ip route add 192.168.1.0/24 via 192.168.11.2" >> "$work/core.sh"
echo "ip route add 192.168.2.0/24 via 192.168.12.2" >> "$work/core.sh"
links mn a a core b core cn core > "$work/before.json"
links mn b a core b core cn core > "$work/after.json"
echo '{}' > "$work/none.json"

cp "$examples"/meshnet-lab/mat_*.sh "$lab/protocols"
"$lab/network.py" apply "$work/before.json"
"$lab/software.py" start mat
handover
