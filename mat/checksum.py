"""The checksum of the Internet (RFC 1071), of IP, UDP and others."""


def internet_checksum(data: bytes) -> int:
    """The complement of the sum of all 16-bit words; an odd byte at the end is the first of one.

    The ones' complement sum of words is the number that they write, modulo 0xffff.
    """
    rest = int.from_bytes(data + bytes(len(data) % 2), "big") % 0xFFFF
    # Of the two zeros, a sum of anything but zeros is 0xffff.
    return 0xFFFF - rest if rest or not any(data) else 0
