"""The configuration as last read again, in memory that the supervisor shares with its workers.

A worker may read while the supervisor writes, and neither waits for the other: what is read is
checked, and read again if it is a mixture.
"""

import os
import time
import zlib
from struct import Struct
from typing import Final

_HEAD: Final = Struct("!QI")
"""Bytes of the text, and its CRC-32."""
_TRIES: Final = 1000
_PAUSE: Final = 0.001


def hand_down(memory: int, text: str) -> None:
    """Put a text into the memory behind a file descriptor (memfd_create(2))."""
    data = text.encode()
    os.pwrite(memory, _HEAD.pack(len(data), zlib.crc32(data)) + data, 0)


def handed_down(memory: int) -> str:
    """The text that is there. Raises `OSError` if it never becomes whole."""
    for _ in range(_TRIES):
        size, crc = _HEAD.unpack(os.pread(memory, _HEAD.size, 0))
        data = os.pread(memory, size, _HEAD.size)
        if len(data) == size and zlib.crc32(data) == crc:
            return data.decode()
        time.sleep(_PAUSE)
    raise OSError("the supervisor's configuration cannot be read")
