"""A handover in CORE 9.2: a node moves from one switch to another during a download over TCP.

    sudo /opt/core/venv/bin/python handover.py

It takes CORE, iperf3, and `mat` where mat_services/mat.py finds it. The exit code is 1 if the
connection did not survive.
"""

import re
import sys
import time
from pathlib import Path

from core.emulator.coreemu import CoreEmu
from core.emulator.data import InterfaceData
from core.emulator.enumerations import EventTypes
from core.nodes.base import CoreNode
from core.nodes.network import SwitchNode

SERVICES = Path(__file__).resolve().parent / "mat_services"
BYTES = re.compile(r"sec +([0-9.]+) [KMG]?Bytes")
LIMIT = 60
"""Seconds for what should happen."""


def main():
    """Build the session, move the node, say what happened, and take all away."""
    coreemu = CoreEmu({"custom_services_dir": str(SERVICES)})
    session = coreemu.create_session()
    try:
        session.set_state(EventTypes.CONFIGURATION_STATE)
        mn, cn, plugs = build(session)
        for error in session.instantiate():
            sys.exit(f"a service did not start: {error}")
        for node in (mn, cn):
            until(lambda node=node: "registered home" in file(node, "mat-node.log"))
        survived = handover(session, mn, cn, plugs)
    finally:
        coreemu.delete_session(session.id)
    sys.exit(0 if survived else 1)


def build(session):
    """Two access networks, a router, and a network with CN, IMS and DNS.

    MN, CN, and the interfaces at both ends of MN's link.
    """
    router = add(session, "r", "IPForward")
    for net in (1, 2, 3):
        switch = session.add_node(SwitchNode, name=f"s{net}")
        link(session, router, switch, f"192.168.{net}.1", interface=net - 1)
    s1, s3 = by_name(session, "s1"), by_name(session, "s3")
    mn = add(session, "mn", "DefaultRoute", "MAT")
    cn = add(session, "cn", "DefaultRoute", "MAT")
    plugs = link(session, mn, s1, "192.168.1.10")
    link(session, cn, s3, "192.168.3.10")
    link(session, add(session, "ims", "DefaultRoute", "MAT-IMS"), s3, "192.168.3.2")
    link(session, add(session, "dns", "DefaultRoute", "MAT-DNS"), s3, "192.168.3.3")
    mn.set_service_config("MAT", {"home": "10.1.0.1"})
    cn.set_service_config("MAT", {"home": "10.1.0.2"})
    return mn, cn, plugs


def add(session, name, *services):
    """Add a node with services."""
    options = CoreNode.create_options()
    options.services = list(services)
    return session.add_node(CoreNode, name=name, options=options)


def link(session, node, switch, address, *, interface=0):
    """Link a node's interface to a switch, with an address of a /24; both ends of the link."""
    data = InterfaceData(id=interface, ip4=address, ip4_mask=24)
    return session.add_link(node.id, switch.id, data)


def unlink(session, node, switch, ours, theirs):
    """Take a link away."""
    bridge = session.link_manager.get_link(node, ours, switch, theirs).ptp
    session.delete_link(node.id, switch.id, ours.id, theirs.id)
    bridge.shutdown()  # CORE 9.2.1 leaves it, and gives its name to the next link


def by_name(session, name):
    """A node by its name."""
    return next(node for node in session.nodes.values() if node.name == name)


def handover(session, mn, cn, plugs):
    """Move MN while it downloads from CN; whether that went on, over the same connections."""
    cn.cmd("iperf3 --server --one-off --daemon")
    until(lambda: "5201" in cn.cmd("ss -Htln"))
    download = "iperf3 --client 10.1.0.2 --reverse --time 120 --bitrate 20M --forceflush"
    mn.cmd(f"{download} > iperf3.log 2>&1", wait=False, shell=True)
    until(lambda: len(intervals(mn)) >= 3)
    before = connections(mn)
    print("mn moves from s1 to s2", flush=True)
    unlink(session, mn, by_name(session, "s1"), *plugs)
    link(session, mn, by_name(session, "s2"), "192.168.2.10")
    mn.cmd("ip route replace default via 192.168.2.1")
    so_far = len(intervals(mn))
    until(lambda: len(intervals(mn)) >= so_far + 3)
    after = connections(mn)
    print(file(mn, "iperf3.log"))
    print("TCP before:", *before, sep="\n  ")
    print("TCP after:", *after, sep="\n  ", flush=True)
    return before == after


def file(node, name):
    """The text of a file in a node's folder."""
    path = node.directory / name
    return path.read_text() if path.exists() else ""


def intervals(node):
    """What came in by iperf3's account, in each interval in which something did."""
    return [found for found in BYTES.findall(file(node, "iperf3.log")) if float(found)]


def connections(node):
    """The TCP connections with iperf3's server, as `address:port → address:port`."""
    lines = node.cmd("ss -Htn state established dport = :5201").splitlines()
    return sorted(" → ".join(line.split()[2:4]) for line in lines)


def until(condition):
    """Wait for what should happen."""
    end = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > end:
            sys.exit(
                f"this did not happen within {LIMIT} s: line {condition.__code__.co_firstlineno}"
            )
        time.sleep(0.2)


if __name__ == "__main__":
    main()
