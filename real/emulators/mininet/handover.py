"""A handover in Mininet: a host moves from one bridge to another during a download over TCP.

    sudo python3 handover.py

It takes Debian's mininet, bridge-utils and iperf3, and `mat` where mat_mininet.py finds it. The
exit code is 1 if the connection did not survive.
"""

import re
import signal
import sys
import time

from mat_mininet import MatHost, MatTopo
from mininet.log import setLogLevel
from mininet.net import Mininet
from mininet.nodelib import LinuxBridge

CN = "10.2.0.1"
BYTES = re.compile(r"sec +([0-9.]+) [KMG]?Bytes")


def main():
    """Build the network, move the host, say what happened, and take all away."""
    setLogLevel("info")
    net = Mininet(topo=MatTopo(), host=MatHost, switch=LinuxBridge, controller=None)
    try:
        net.start()
        for host in (net["mn"], net["cn"]):
            host.wait_registered()
        survived = handover(net, net["mn"], net["cn"])
    finally:
        net.stop()
    sys.exit(0 if survived else 1)


def handover(net, mn, cn):
    """Move MN while it downloads from CN; whether that went on, over the same connections."""
    cn.cmd("iperf3 --server --one-off > /dev/null &")
    while "5201" not in cn.cmd("ss -Htln"):
        time.sleep(0.1)
    download = ["iperf3", "--client", CN, "--reverse", "--time", "120", "--bitrate", "20M"]
    client = mn.popen([*download, "--forceflush"], text=True)
    ping = mn.popen(["ping", "-i", "0.02", "-w", "120", CN], text=True)
    try:
        follow(client, 3)
        before = connections(mn)
        print("*** mn moves from s1 to s2", flush=True)
        mn.move(net, net["s2"], "192.168.2.10/24", via="192.168.2.1")
        follow(client, 3)
        after = connections(mn)
    finally:
        for program in (client, ping):
            program.send_signal(signal.SIGINT)
    client.communicate()
    print("ping:", ping.communicate()[0].splitlines()[-2])
    print("TCP before:", *before, sep="\n  ")
    print("TCP after:", *after, sep="\n  ", flush=True)
    return before == after


def follow(client, intervals):
    """Print what iperf3 says until data came in so many intervals."""
    while intervals:
        line = client.stdout.readline()
        if not line:
            sys.exit(f"iperf3 has ended: {client.stderr.read()}")
        print(line, end="", flush=True)
        found = BYTES.search(line)
        intervals -= bool(found and float(found[1]))


def connections(host):
    """The TCP connections with iperf3's server, as `address:port → address:port`."""
    lines = host.cmd("ss -Htn state established dport = :5201").splitlines()
    return sorted(" → ".join(line.split()[2:4]) for line in lines)


if __name__ == "__main__":
    main()
