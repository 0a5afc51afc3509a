"""Answers MA Queries at once, with the address that they ask for: a server that does nothing.

What a round trip to it takes is what the way takes, both processes' wake-up included. Run by its
path in a process of its own, so it imports nothing of this package; it prints its port, and ends
with its standard input. docs/protocol.md, section 3, has the layout.
"""

import os
import socket
import sys
import threading

_ANSWER = bytes((4, 0, 0x80, 12))
"""MA Answer, code 0, extensions follow, 12 words."""
_LIFETIME = (60).to_bytes(4, "big")
_VERSION = bytes((2, 4, 0, 0)) + bytes(12)


def answer(query: bytes) -> bytes:
    """The MA Answer to an MA Query whose nonce comes first."""
    home_address, timestamp, nonce = query[8:24], query[24:28], query[28:40]
    body = home_address + home_address + timestamp + _LIFETIME
    return _ANSWER + query[4:8] + body + nonce + _VERSION


def main(family: socket.AddressFamily, address: str) -> None:
    """Bind to an address of this host and answer until standard input is closed."""
    threading.Thread(target=_end_with_input, daemon=True).start()
    with socket.socket(family, socket.SOCK_DGRAM) as bound:
        bound.bind((address, 0))
        sys.stdout.write(f"{bound.getsockname()[1]}\n")
        sys.stdout.flush()
        while True:
            query, source = bound.recvfrom(2048)
            bound.sendto(answer(query), source)


def _end_with_input() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, sys.argv[1])
