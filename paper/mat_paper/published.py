"""What the paper measured, and how: section 5 of Seki et al. All in SI units.

Figure 5 is a picture, whose curves are not to be read to the digit; here is what the text says of
it.
"""

from dataclasses import dataclass
from typing import Final, final


@final
@dataclass(frozen=True, slots=True)
class RoundTrip:
    """What ping says of round trips, s."""

    least: float
    mean: float
    greatest: float


TABLE_4: Final = {
    "without": RoundTrip(0.265e-3, 0.412e-3, 0.477e-3),
    "with": RoundTrip(0.382e-3, 0.464e-3, 0.644e-3),
}
"""RTT between MN and CN, `ping -s 36 -f -c 100000`."""
ADDED: Final = 0.052e-3
"""By how much MAT makes a round trip longer, s: the difference of the means, as its text says."""

PING_PAYLOAD: Final = 36
"""Bytes after the ICMP header; 64 with both headers."""
PING_COUNT: Final = 100_000

UDP_DATAGRAM: Final = 1470
"""Bytes that iperf puts into a datagram."""
UDP_SECONDS: Final = 10.0
UDP_RUNS: Final = 10
UDP_EQUAL: Final = 400e6
"""Up to this load, bit/s, throughput with MAT was that without."""
UDP_LIMIT: Final = 560e6
"""What its machines could do without MAT, bit/s, about."""

LINK_RATE: Final = 1e9
MACHINES: Final = {
    "MN, CN": "HP Mini 5101, Intel Atom N280 1.66 GHz, 2 GB, Debian 5.0.3 i386, Linux 2.6.27.24",
    "IMS, DNS": "HP Compaq 6005 Pro, AMD Athlon II X2 B24 3 GHz, 4 GB, CentOS 5.4 i386 on VMware",
    "switches": "AlaxalA AX3630S-24T (layer 3, DHCP), Allied Telesis CentreCOM GS916S; 1 Gbit/s",
    "iperf": "2.0.4",
}
"""Tables 2 and 3."""
