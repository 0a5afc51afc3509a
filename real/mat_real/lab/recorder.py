"""Records packets in one namespace or more: `python recorder.py FILTER NAMESPACE INTERFACE FILE …`.

It uses libpcap, the library that tcpdump is built on. tcpdump itself changes its user before it
records, which it cannot do in a user namespace that has but one: there setgroups(2) is forbidden
(user_namespaces(7)). Files are those of pcap-savefile(5), with nanoseconds; what is recorded of
`any` interface has the header LINKTYPE_LINUX_SLL2, which says whether a packet came or went.
Of the standard library alone, so that it starts in a moment.
"""

import ctypes
import ctypes.util
import os
import select
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from types import FrameType
from typing import Any, Final, final

READY: Final = "recording"
"""What it prints when packets are recorded."""
ANY: Final = "any"
_NAMES: Final = ("libpcap.so.0.8", "libpcap.so.1")
"""Of the library, in Debian and elsewhere."""
_LONGEST: Final = 2048
"""Bytes of a packet that are kept."""
_BUFFER: Final = 2 << 20
"""Bytes that may wait in the kernel for this process, for each namespace."""
_COOKED: Final = 276  # LINKTYPE_LINUX_SLL2
_NANOSECONDS: Final = 1  # PCAP_TSTAMP_PRECISION_NANO
_NO_NETMASK: Final = 0xFFFFFFFF
_ERROR_SIZE: Final = 256
_NETWORK: Final = 0x40000000  # CLONE_NEWNET
_POINTERS: Final = ("pcap_create", "pcap_dump_open", "pcap_geterr")
"""Functions whose result is one."""


@final
class _Program(ctypes.Structure):
    """A compiled filter (struct bpf_program)."""

    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.c_void_p))


@final
class _Statistics(ctypes.Structure):
    """What pcap_stats(3) fills in."""

    _fields_ = (("received", ctypes.c_uint), ("missed", ctypes.c_uint), ("other", ctypes.c_uint))


@final
class Recorder:
    """What passes an interface of this process's network namespace, into a file."""

    __slots__ = ("_dump", "_handle", "_library", "descriptor")

    def __init__(self, library: ctypes.CDLL, interface: str, wanted: str, path: str) -> None:
        """`wanted` as in pcap-filter(7). Raises `OSError`."""
        self._library = library
        error = ctypes.create_string_buffer(_ERROR_SIZE)
        opened = library.pcap_create(interface.encode(), error)
        if not opened:
            raise OSError(error.value.decode())
        self._handle = ctypes.c_void_p(opened)
        library.pcap_set_snaplen(self._handle, _LONGEST)
        library.pcap_set_buffer_size(self._handle, _BUFFER)
        library.pcap_set_immediate_mode(self._handle, 1)
        library.pcap_set_tstamp_precision(self._handle, _NANOSECONDS)
        self._check(min(0, library.pcap_activate(self._handle)))
        if interface == ANY:
            self._check(library.pcap_set_datalink(self._handle, _COOKED))
        program = _Program()
        compiled = library.pcap_compile(
            self._handle, ctypes.byref(program), wanted.encode(), 1, ctypes.c_uint32(_NO_NETMASK)
        )
        self._check(compiled)
        self._check(library.pcap_setfilter(self._handle, ctypes.byref(program)))
        self._check(library.pcap_setnonblock(self._handle, 1, error))
        self._dump = ctypes.c_void_p(library.pcap_dump_open(self._handle, path.encode()))
        self._check(0 if self._dump.value else -1)
        self.descriptor: int = library.pcap_get_selectable_fd(self._handle)

    def _check(self, result: int) -> None:
        if result < 0:
            raise OSError(_text(self._library.pcap_geterr(self._handle)))

    def take(self) -> None:
        """Write down what has come."""
        write = ctypes.cast(self._library.pcap_dump, ctypes.c_void_p)
        self._library.pcap_dispatch(self._handle, -1, write, self._dump)
        self._library.pcap_dump_flush(self._dump)

    def missed(self) -> int:
        """Packets that came faster than they could be written down."""
        found = _Statistics()
        self._check(self._library.pcap_stats(self._handle, ctypes.byref(found)))
        return int(found.missed)


def _text(pointer: int) -> str:
    return ctypes.string_at(pointer).decode(errors="replace")


def _library() -> ctypes.CDLL:
    for name in _NAMES:
        with suppress(OSError):
            return _declared(ctypes.CDLL(name))
    # This runs other programs, and so comes last.
    found = ctypes.util.find_library("pcap")
    if found is not None:
        return _declared(ctypes.CDLL(found))
    raise OSError("libpcap is not installed; mend it with: sudo apt install libpcap0.8")


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    for function in _POINTERS:
        getattr(library, function).restype = ctypes.c_void_p
    return library


def _enter(namespace: str) -> None:
    descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    libc: Any = ctypes.CDLL(None, use_errno=True)
    failed = libc.setns(descriptor, _NETWORK)
    os.close(descriptor)
    if failed:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), namespace)


def _recorders(wanted: str, places: Sequence[str]) -> Iterator[Recorder]:
    library = _library()
    for namespace, interface, path in zip(places[::3], places[1::3], places[2::3], strict=True):
        _enter(namespace)
        yield Recorder(library, interface, wanted, path)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> None:
    """Record until SIGTERM; SIGUSR1 asks how much was missed."""
    try:
        recorders = list(_recorders(sys.argv[1], sys.argv[2:]))
    except OSError as error:
        sys.exit(str(error))

    def report(_number: int, _frame: FrameType | None) -> None:
        for recorder in recorders:
            recorder.take()
        _say(f"{sum(recorder.missed() for recorder in recorders)} missed")

    def end(number: int, frame: FrameType | None) -> None:
        report(number, frame)
        sys.exit()

    signal.signal(signal.SIGUSR1, report)
    signal.signal(signal.SIGTERM, end)
    by_descriptor = {recorder.descriptor: recorder for recorder in recorders}
    poll = select.poll()
    for descriptor in by_descriptor:
        poll.register(descriptor, select.POLLIN)
    _say(READY)
    while True:
        for descriptor, _ in poll.poll():
            by_descriptor[descriptor].take()


if __name__ == "__main__":
    main()
