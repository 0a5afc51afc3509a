"""Numbers of pcapng (draft-ietf-opsawg-pcapng), for reading and writing."""

from typing import Final

SECTION: Final = 0x0A0D0D0A
INTERFACE: Final = 1
SIMPLE_PACKET: Final = 3
NAMES: Final = 4
PACKET: Final = 6

BYTE_ORDER: Final = 0x1A2B3C4D

END: Final = 0
"""The option, and the record of names, that is the last."""
SECTION_APPLICATION: Final = 4
IF_NAME: Final = 2
IF_DESCRIPTION: Final = 3
IF_RESOLUTION: Final = 9
IF_OFFSET: Final = 14
PACKET_FLAGS: Final = 2

INWARD: Final = 1
OUTWARD: Final = 2
DIRECTION: Final = 3
"""The bits of a packet's flags that say which."""

IPV4_NAME: Final = 1
IPV6_NAME: Final = 2

RAW: Final = 101
"""Link type of bare IP packets, of either version."""

HOST: Final = "host: what left it and what reached it"
"""Description of an interface that stands for a whole host."""
