# shellcheck shell=bash
# Three namespaces, however they were made: MN at one of two bridges of a router, and CN behind it.
#
#     mn ──── bridge a ─┐
#                       r ──── cn       r is IMS and DNS as well
#             bridge b ─┘
#
# A script that reads this fills in `enter`, `netns` (as in `ip link set … netns …`), and `ref` (as
# in `mat attach --ns …`), each for mn, cn and r; and defines `remove`, which undoes what it made.

source "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../common.sh"
declare -A netns ref

# Links and addresses; MN is plugged into bridge a.
build() {
    local host
    for host in mn cn r; do
        ${enter[$host]} ip link set lo up
    done
    for host in mn cn; do
        ${enter[r]} ip link add "to-$host" type veth peer name eth0
        ${enter[r]} ip link set eth0 netns "${netns[$host]}"
        ${enter[r]} ip link set "to-$host" up
        ${enter[$host]} ip link set eth0 up
    done
    ${enter[r]} ip link add net-a type bridge
    ${enter[r]} ip link add net-b type bridge
    ${enter[r]} ip link set net-a up
    ${enter[r]} ip link set net-b up
    ${enter[r]} ip link set to-mn master net-a
    ${enter[r]} ip address add 192.168.1.1/24 dev net-a
    ${enter[r]} ip address add 192.168.2.1/24 dev net-b
    ${enter[r]} ip address add 192.168.9.1/24 dev to-cn
    ${enter[r]} sysctl -qw net.ipv4.ip_forward=1
    ${enter[mn]} ip address add 192.168.1.10/24 dev eth0
    ${enter[mn]} ip route add default via 192.168.1.1
    ${enter[cn]} ip address add 192.168.9.10/24 dev eth0
    ${enter[cn]} ip route add default via 192.168.9.1
}

# Plug MN into bridge b, where it has another address.
move() {
    ${enter[r]} ip link set to-mn master net-b
    ${enter[mn]} ip address flush dev eth0
    ${enter[mn]} ip address add 192.168.2.10/24 dev eth0
    ${enter[mn]} ip route add default via 192.168.2.1
}

# Run a daemon in a host until the end: the host, its role, the name of its configuration and log.
attach() {
    "$mat" attach --ns "${ref[$1]}" --role "$2" --config "$work/$3.toml" > "$work/$3.log" 2>&1 &
    pids+=($!)
    until [ -S "$work/$3.sock" ]; do
        kill -0 $! 2> /dev/null || fail "mat attach in $1: $(cat "$work/$3.log")"
        sleep 0.1
    done
}

# All of it.
example() {
    build
    configure 192.168.9.1
    attach r ims ims
    attach mn mn mn
    attach cn cn cn
    handover
}
