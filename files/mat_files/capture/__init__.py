"""Captures: packets in files that Wireshark reads, written by simulator and lab, and read back.

Theory of operation. What is written is pcapng with one interface for each host, named after it; on
it are the bare IP packets that left the host or reached it, and which of the two it was. So a
packet that arrived is there twice, a lost one once. Addresses have names in blocks of their own
(`m1` for a home address, `m1@A` for a mobile one), written before the first packet that needs them.

What is read is that, and pcap and pcapng of others: tcpdump and Wireshark record an interface, not
a host, and mostly in one place, so from them it is known when a packet passed, not when it arrived.

The format is draft-ietf-opsawg-pcapng; pcap's is in draft-ietf-opsawg-pcap; the link types are
those of the registry of tcpdump.org. Why it is read and written here: docs/design.md, Captures.
"""

from mat_files.capture._dns import DNS_PORT, ImsLookup, ims_answer, ims_lookup, ims_question
from mat_files.capture._names import address_name, host_of
from mat_files.capture._packets import (
    PROBE_PORT,
    Datagram,
    IpPacket,
    datagram_of,
    ip_packet,
    probe_payload,
    udp_packet,
)
from mat_files.capture._pairing import Pairing
from mat_files.capture._read import Capture, Packet, read_capture
from mat_files.capture._story import Story, story_of
from mat_files.capture._write import CaptureWriter, check_place, writing

__all__ = [
    "DNS_PORT",
    "PROBE_PORT",
    "Capture",
    "CaptureWriter",
    "Datagram",
    "ImsLookup",
    "IpPacket",
    "Packet",
    "Pairing",
    "Story",
    "address_name",
    "check_place",
    "datagram_of",
    "host_of",
    "ims_answer",
    "ims_lookup",
    "ims_question",
    "ip_packet",
    "probe_payload",
    "read_capture",
    "story_of",
    "udp_packet",
    "writing",
]
