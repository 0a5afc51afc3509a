"""Mobility systems to compare MAT with, as machines without I/O and without a clock.

Mobile IPv4, Mobile IPv6, LIN6, Mobile PPC, and no mobility at all, each from its specification
(docs/baselines.md says what is from where). A machine is used like those in `mat`: an input takes
`now` and returns effects, and `deadline` says when it wants to be woken. Everything that travels is
a `Datagram`, signalling and data alike, so an engine needs to know nothing of what is inside: it
carries datagrams to whoever holds their destination, or to the server that catches them.

Start reading at `_machine.py`, the interface; `_datagram.py` has what travels, `_path.py` the way
that data takes at one moment. Only the standard library and `mat` are imported here.
"""

from mat_sim.baselines._datagram import (
    IPV4_HEADER,
    IPV6_HEADER,
    UDP_HEADER,
    Data,
    Datagram,
)
from mat_sim.baselines._machine import (
    Deliver,
    Discard,
    Effect,
    Home,
    Host,
    Lookup,
    Reason,
    Server,
    System,
    Transmit,
)
from mat_sim.baselines._path import Leg, Path, path
from mat_sim.baselines.lin6 import Lin6
from mat_sim.baselines.mobile_ipv4 import MobileIpv4
from mat_sim.baselines.mobile_ipv6 import MobileIpv6
from mat_sim.baselines.mobile_ppc import MobilePpc
from mat_sim.baselines.no_mobility import NoMobility

__all__ = [
    "IPV4_HEADER",
    "IPV6_HEADER",
    "UDP_HEADER",
    "Data",
    "Datagram",
    "Deliver",
    "Discard",
    "Effect",
    "Home",
    "Host",
    "Leg",
    "Lin6",
    "Lookup",
    "MobileIpv4",
    "MobileIpv6",
    "MobilePpc",
    "NoMobility",
    "Path",
    "Reason",
    "Server",
    "System",
    "Transmit",
    "path",
]
