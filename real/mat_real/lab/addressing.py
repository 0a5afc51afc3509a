"""Addresses and default routes of a node that the lab configures, set by netlink.

This is what DHCP, router advertisements and a connection manager would bring about. What it takes
counts as part of a handover, so it is done by single messages from a thread that waits in the node.
Of several networks, the one configured or preferred last has the default route of the lowest
metric, as a connection manager would see to it.
"""

import socket
import time
from contextlib import suppress
from typing import Final, final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from mat_real.lab.inside import Resident
from mat_real.lab.plan import CORE6, AccessNetwork, Pair
from mat_real.namespaces import NodeRef

_FIRST_METRIC: Final = 20_000
"""Of the default route that comes first; each later one has one less."""
_CARRIER_TIME: Final = 1.0
_LOOK: Final = 0.001
_STATIC: Final = 4  # RTPROT_STATIC
_GLOBAL: Final = 0  # RT_SCOPE_UNIVERSE
_NO_DETECTION: Final = 0x02  # IFA_F_NODAD
_DEFAULTS: Final = ((socket.AF_INET, "0.0.0.0/0"), (socket.AF_INET6, "::/0"))


@final
class Addressing:
    """What the lab has configured in a node: of each interface the metric of its routes."""

    __slots__ = ("_indexes", "_inside", "_metric", "_metrics", "_netlink")

    def __init__(self, node: NodeRef) -> None:
        self._inside = Resident(node)
        self._netlink = self._inside.do(IPRoute)
        self._indexes = self._inside.do(lambda: indexes(self._netlink))
        self._metric = _FIRST_METRIC
        self._metrics: dict[int, int] = {}

    def close(self) -> None:
        """Configure no longer; what there is stays."""
        self._inside.do(self._netlink.close)
        self._inside.leave()

    def __contains__(self, interface: int) -> bool:
        """Whether an interface has what the lab gave it."""
        return interface in self._metrics

    def configure(self, interface: int, network: AccessNetwork, moa: Pair) -> None:
        """Give an interface its addresses on a network, and no others, and the best routes."""
        self._inside.do(lambda: self._configure(interface, network, moa))

    def prefer(self, interface: int, network: AccessNetwork) -> None:
        """Give an interface the best default routes."""
        self._inside.do(lambda: self._prefer(interface, network))

    def clear(self, interface: int) -> None:
        """Take from an interface what it was given."""
        self._inside.do(lambda: self._clear(interface))

    def _configure(self, interface: int, network: AccessNetwork, moa: Pair) -> None:
        index = self._index(interface)
        self._await_carrier(index)
        self._flush(index)
        length = network.pool.ipv4.prefixlen
        self._netlink.addr("replace", index=index, address=str(moa.ipv4), prefixlen=length)
        # A router's advertisement may have brought it meanwhile.
        self._netlink.addr(
            "replace", index=index, address=str(moa.ipv6), prefixlen=64, flags=_NO_DETECTION
        )
        self._prefer(interface, network)

    def _await_carrier(self, index: int) -> None:
        """Until then the kernel drops what is sent, and a lost ARP request costs a second."""
        end = time.monotonic() + _CARRIER_TIME
        while time.monotonic() < end:
            (link,) = self._netlink.link("get", index=index)
            if link.get("operstate") == "UP":
                return
            time.sleep(_LOOK)

    def _prefer(self, interface: int, network: AccessNetwork) -> None:
        before = self._metrics.get(interface)
        self._metric -= 1
        self._metrics[interface] = self._metric
        gateways = str(network.gateway.ipv4), str(CORE6)
        for (family, to), gateway in zip(_DEFAULTS, gateways, strict=True):
            way = {"family": family, "dst": to, "gateway": gateway, "proto": _STATIC}
            index = self._index(interface)
            self._netlink.route("add", oif=index, priority=self._metric, **way)
        if before is not None:
            self._remove_defaults(interface, before)

    def _clear(self, interface: int) -> None:
        self._remove_defaults(interface, self._metrics.pop(interface))
        self._flush(self._index(interface))

    def _flush(self, index: int) -> None:
        for one in list(self._netlink.get_addr(index=index, scope=_GLOBAL)):
            address, length = one.get("address"), one["prefixlen"]
            # With an address the kernel takes others.
            with suppress(NetlinkError):
                self._netlink.addr("del", index=index, address=address, prefixlen=length)

    def _remove_defaults(self, interface: int, metric: int) -> None:
        for family, to in _DEFAULTS:
            index = self._index(interface)
            # With a link the kernel takes some of its routes.
            with suppress(NetlinkError):
                self._netlink.route("del", family=family, dst=to, oif=index, priority=metric)

    def _index(self, interface: int) -> int:
        return self._indexes[f"eth{interface}"]


def indexes(netlink: IPRoute) -> dict[str, int]:
    """The interfaces of a namespace by name."""
    return {link.get("ifname"): link["index"] for link in netlink.get_links()}
