# shellcheck shell=bash
# What the examples in shell share: the files of a small MAT network, and a download during a move.
#
# MN is 10.1.0.1 and CN 10.2.0.1, whatever network they are in; IMS and DNS are one server.
# A script that reads this fills in `enter`, defines `move` and, for the end, `remove`; and calls
# `configure` and `handover`.

set -euo pipefail
examples=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
work=$(mktemp -dt mat-example-XXXXXX) # keys, configurations, logs
declare -A enter                           # the command that runs another one in a host
pids=()

fail() {
    echo "$*" >&2
    exit 1
}

mat=${MAT:-$examples/../../.venv/bin/mat}
command -v "$mat" > /dev/null || mat=$(command -v mat) ||
    fail "there is no program mat: \`make real\` makes it, or name it: MAT=/path/to/.venv/bin/mat"

# The keys and configurations of MN, CN and the server; where the server is.
configure() {
    local host
    "$mat" key new 10.1.0.1 --keys "$work/keys" --out "$work/mn.key"
    "$mat" key new 10.2.0.1 --keys "$work/keys" --out "$work/cn.key"
    for host in mn cn; do
        cat > "$work/$host.toml" << EOF
node.key = "$host.key"
node.control = "$host.sock"
dns.servers = ["$1"]
EOF
    done
    cat > "$work/ims.toml" << EOF
ims.zones = ["10.1.0.0/16", "10.2.0.0/16"]
ims.keys = "keys"
ims.control = "ims.sock"
store.path = "ims.store"
dns.servers = ["$1"]
[responder]
listen = "$1:53"
zones = ["in-addr.arpa", "ip6.arpa"]
records = { "10.1.0.0/16" = "10 49628 $1", "10.2.0.0/16" = "10 49628 $1" }
EOF
}

# Wait for a condition, with the words to say if it does not come true.
wait_for() {
    local words=$1 end=$((SECONDS + 60))
    shift
    until "$@"; do
        ((SECONDS < end)) || fail "$words does not happen; logs are in $work"
        sleep 0.2
    done
}

# Download to MN from CN, and `move` meanwhile; it fails if that is not over the same connections.
handover() {
    local before after iperf3 ping
    wait_for "registration of mn" grep -q "registered home" "$work/mn.log"
    wait_for "registration of cn" grep -q "registered home" "$work/cn.log"
    ${enter[cn]} iperf3 --server --one-off > "$work/server.log" 2>&1 &
    pids+=($!)
    wait_for "a listening iperf3" listening
    ${enter[mn]} iperf3 --client 10.2.0.1 --reverse --time 120 --bitrate 20M --forceflush \
        > "$work/iperf3.log" 2>&1 &
    iperf3=$!
    ${enter[mn]} ping -i 0.02 -w 120 10.2.0.1 > "$work/ping.log" 2>&1 &
    ping=$!
    pids+=("$iperf3" "$ping")
    wait_for "a download" more_intervals_than 2
    before=$(connections)
    echo "mn moves"
    move
    wait_for "a download after the move" more_intervals_than $(($(intervals) + 2))
    after=$(connections)
    kill -INT "$ping"
    wait "$ping" || true
    cat "$work/iperf3.log"
    tail -2 "$work/ping.log"
    printf 'TCP before:\n%s\nTCP after:\n%s\n' "$before" "$after"
    [ -n "$before" ] && [ "$before" = "$after" ]
}

listening() {
    [ -n "$(${enter[cn]} ss -Htln sport = :5201)" ]
}

# Seconds in which something came in, by iperf3's account.
intervals() {
    grep -cE 'sec +[0-9.]*[1-9][0-9.]* [KMG]?Bytes' "$work/iperf3.log" || true
}

more_intervals_than() {
    [ "$(intervals)" -gt "$1" ]
}

# The TCP connections with iperf3's server: both addresses and ports.
connections() {
    ${enter[mn]} ss -Htn state established dport = :5201 | awk '{ print "  " $3 " → " $4 }' | sort
}

# End what was started, in that order. Logs stay only if something went wrong.
finish() {
    local status=$? pid
    for pid in "${pids[@]}"; do
        kill "$pid" 2> /dev/null || true
        wait "$pid" 2> /dev/null || true
    done
    remove || true
    [ "$status" -ne 0 ] || rm -r "$work"
}
remove() {
    : # of what a script made
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
