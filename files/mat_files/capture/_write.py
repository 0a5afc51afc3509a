"""Writing pcapng: hosts, names of addresses, packets."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from struct import Struct
from typing import BinaryIO, Final, final

from mat import __version__
from mat.address import Address, is_ipv4, to_packed
from mat_files.capture import _blocks as blocks
from mat_files.errors import CaptureError

_HEAD: Final = Struct("<II")
_TAIL: Final = Struct("<I")
_SECTION: Final = Struct("<IHHq")
_INTERFACE: Final = Struct("<HHI")
_PACKET: Final = Struct("<IIIII")
_PAIR: Final = Struct("<HH")
_FLAGS: Final = Struct("<HHIHH")
_NANOSECONDS: Final = b"\x09"
_UNKNOWN_LENGTH: Final = -1
_ALIGNED: Final = (b"", b"\0\0\0", b"\0\0", b"\0")
"""What is missing to a multiple of four bytes, by the remainder."""
_PACKET_END: Final = {
    outward: _FLAGS.pack(blocks.PACKET_FLAGS, 4, direction, blocks.END, 0)
    for outward, direction in ((True, blocks.OUTWARD), (False, blocks.INWARD))
}


@final
class CaptureWriter:
    """A capture in the making, in order of time. `writing` opens one."""

    __slots__ = ("_file", "_hosts", "_names")

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._hosts: dict[str, int] = {}
        self._names: dict[Address, str] = {}
        section = _SECTION.pack(blocks.BYTE_ORDER, 1, 0, _UNKNOWN_LENGTH)
        application = _option(blocks.SECTION_APPLICATION, f"mat-mobility {__version__}".encode())
        self._block(blocks.SECTION, section + application + _option(blocks.END, b""))

    def name(self, names: Mapping[Address, str]) -> None:
        """Addresses are called so from here on; a later name takes the place of an earlier."""
        new = {one: name for one, name in names.items() if self._names.get(one) != name}
        if new:
            self._names |= new
            records = b"".join(_name(address, name) for address, name in new.items())
            self._block(blocks.NAMES, records + _option(blocks.END, b""))

    def host(self, name: str) -> int:
        """The number of a host's interface, which is made if it is not there yet."""
        if name not in self._hosts:
            options = (
                _option(blocks.IF_NAME, name.encode())
                + _option(blocks.IF_DESCRIPTION, blocks.HOST.encode())
                + _option(blocks.IF_RESOLUTION, _NANOSECONDS)
                + _option(blocks.END, b"")
            )
            self._block(blocks.INTERFACE, _INTERFACE.pack(blocks.RAW, 0, 0) + options)
            self._hosts[name] = len(self._hosts)
        return self._hosts[name]

    def packet(self, time: int, host: str, content: bytes, size: int, *, outward: bool) -> None:
        """A packet of `size` bytes left a host, or reached it; `time` in ns since 1970."""
        number, kept = self.host(host), len(content)
        head = _PACKET.pack(number, time >> 32, time & 0xFFFFFFFF, kept, size)
        self._block(blocks.PACKET, head + content + _ALIGNED[kept % 4] + _PACKET_END[outward])

    def _block(self, kind: int, body: bytes) -> None:
        size = len(body) + _HEAD.size + _TAIL.size
        self._file.write(_HEAD.pack(kind, size) + body + _TAIL.pack(size))


def _option(code: int, value: bytes) -> bytes:
    return _PAIR.pack(code, len(value)) + value + _ALIGNED[len(value) % 4]


def _name(address: Address, name: str) -> bytes:
    kind = blocks.IPV4_NAME if is_ipv4(address) else blocks.IPV6_NAME
    return _option(kind, to_packed(address) + name.encode() + b"\0")


def check_place(path: Path) -> None:
    """Raise `CaptureError` where there is no directory for such a file: before work begins."""
    if not path.parent.is_dir():
        what = f"{path}: there is no directory {path.parent}; make it, or name another"
        raise CaptureError(what)


@contextmanager
def writing(path: Path) -> Generator[CaptureWriter]:
    """Write a capture: the file is there when all of it is. Raises `CaptureError`."""
    part = path.with_name(f"{path.name}.part")
    try:
        try:
            with part.open("wb") as file:
                yield CaptureWriter(file)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        what = f"{path}: cannot be written ({error.strerror}); name a file that can be"
        raise CaptureError(what) from error
