"""What a unit of systemd permits, without systemd: `python -m tests.real.unit_sandbox …`.

    python -m tests.real.unit_sandbox UNIT RUNTIME VISIBLE -- COMMAND…

runs a command as root under the directives of a unit that may break it: capabilities, system calls
and address families (killed, or refused, as systemd does it), a read-only file system, no kernel
tunables, a /proc, a /dev and a /tmp of its own. RUNTIME is the directory that becomes the unit's in
/run; VISIBLE stays as it is, also where the unit hides it. It has to be a process of its own.

ProtectHome is left out: interpreters of tests may live in a home. Directives are those of
systemd.exec(5); one that is neither here nor known to be harmless is an error, so that whoever
writes it looks.
"""

import ctypes
import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

_ALLOW = 0x7FFF0000
_KILL_PROCESS = 0x80000000
_ERRNO = 0x00050000
_EQUAL = 4
_CLONE_NEWNS = 0x00020000
_MS_BIND = 4096
_DROP_FROM_BOUNDING_SET = 24
_NO_NEW_PRIVILEGES = 38
_FAMILIES = range(64)
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_HARMLESS = frozenset(
    {
        "ExecStart",
        "LockPersonality",
        "ProtectClock",
        "ProtectControlGroups",
        "ProtectHome",
        "ProtectHostname",
        "ProtectKernelLogs",
        "Restart",
        "RestartSec",
        "RestrictRealtime",
        "RestrictSUIDSGID",
        "RuntimeDirectory",
        "RuntimeDirectoryPreserve",
        "SystemCallArchitectures",
        "Type",
        "UMask",
    }
)
"""Of clocks, names, logs, control groups, homes, schedulers and modes, the node changes nothing."""
_IMPOSED = frozenset(
    {
        "CapabilityBoundingSet",
        "NoNewPrivileges",
        "PrivateDevices",
        "PrivateTmp",
        "ProtectKernelModules",
        "ProtectKernelTunables",
        "ProtectProc",
        "ProtectSystem",
        "RestrictAddressFamilies",
        "RestrictNamespaces",
        "SystemCallFilter",
    }
)

Unit = dict[str, list[str]]


def read_unit(path: Path) -> Unit:
    """The directives of the section [Service], and the values of each in order."""
    found: Unit = {}
    section = path.read_text().partition("[Service]\n")[2].partition("\n[")[0]
    for line in section.splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


# ---- system calls ------------------------------------------------------------------------------


@cache
def _library() -> Any:
    found = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    found.seccomp_init.restype = ctypes.c_void_p
    return found


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


class _Filter:
    """A seccomp filter (seccomp(2)); several may be loaded, and the strictest counts."""

    def __init__(self, default: int) -> None:
        self._context = ctypes.c_void_p(_library().seccomp_init(default))

    def add(self, action: int, call: str, first: int | None = None) -> None:
        """What is to be done about a call, whose first argument is this."""
        number = _library().seccomp_syscall_resolve_name(call.encode())
        if number < 0:
            return  # of another architecture
        compared = [] if first is None else [_Comparison(0, _EQUAL, first, 0)]
        array = (_Comparison * len(compared))(*compared)
        code = _library().seccomp_rule_add_array(
            self._context, ctypes.c_uint32(action), number, len(compared), array
        )
        assert code == 0, (call, os.strerror(-code))

    def load(self) -> None:
        """Let it count from now on."""
        code = _library().seccomp_load(self._context)
        assert code == 0, os.strerror(-code)


@cache
def _calls_of(group: str) -> frozenset[str]:
    """The system calls of a group, or the one call that this is."""
    if not group.startswith("@"):
        return frozenset({group})
    command = ["systemd-analyze", "--no-pager", "syscall-filter", group]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    words = [line.split("#")[0].strip() for line in listed.splitlines()[1:]]
    return frozenset().union(*(_calls_of(word) for word in words if word))


def _permitted(values: Sequence[str]) -> frozenset[str]:
    """The calls that `SystemCallFilter` lines amount to, the first of which permits."""
    found = _calls_of("@default")
    for value in values:
        calls = frozenset[str]().union(*map(_calls_of, value.removeprefix("~").split()))
        found = found - calls if value.startswith("~") else found | calls
    return found


def _refused(unit: Unit) -> Iterator[tuple[str, int | None, int]]:
    """Calls that fail, by their first argument, and with what."""
    known = {getattr(socket, name) for name in " ".join(unit["RestrictAddressFamilies"]).split()}
    for family in set(_FAMILIES) - known:
        yield "socket", family, errno.EAFNOSUPPORT
    if unit.get("RestrictNamespaces") == ["yes"]:
        yield "unshare", None, errno.EPERM
        yield "setns", None, errno.EPERM


def _filter_calls(unit: Unit) -> None:
    permitting, refusing = _Filter(_KILL_PROCESS), _Filter(_ALLOW)
    for call in _permitted(unit["SystemCallFilter"]):
        permitting.add(_ALLOW, call)
    for call, first, code in _refused(unit):
        refusing.add(_ERRNO | code, call, first)
    # The one that lets fewer calls pass comes last, since loading is a call.
    refusing.load()
    permitting.load()


# ---- files -------------------------------------------------------------------------------------


def _mount(*words: str | Path) -> None:
    subprocess.run(["mount", *words], check=True)


def _bind(descriptor: int, place: Path, within: str = "") -> None:
    """Have what a descriptor stands for at a place, whatever has been mounted over it meanwhile.

    By the system call: mount(8) would look the descriptor's path up by its name.
    """
    source = f"/proc/self/fd/{descriptor}{within}".encode()
    if ctypes.CDLL(None, use_errno=True).mount(source, bytes(place), None, _MS_BIND, None):
        raise OSError(ctypes.get_errno(), f"cannot be bound to {place}")


def _is_on(unit: Unit, name: str) -> bool:
    return unit.get(name, ["no"]) == ["yes"]


def _hide(unit: Unit, runtime: Path, visible: Path) -> None:
    """The file system as the unit has it; in a mount namespace of this process."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "no mount namespace")
    _mount("--make-rprivate", "/")
    (own,) = unit["RuntimeDirectory"]
    writable = [Path("/run") / own, visible]
    # The project's own files, and its Python, may be in what is hidden; they are but read.
    program = [path for path in (ROOT, Path(sys.prefix)) if _is_hidden(path)]
    kept = [os.open(path, os.O_PATH) for path in (runtime, visible, *program)]
    _mount("-t", "tmpfs", "-o", "mode=755", "run", "/run")
    if _is_on(unit, "PrivateTmp"):
        _mount("-t", "tmpfs", "-o", "mode=1777", "tmp", "/tmp")
    for descriptor, place in zip(kept, (*writable, *program), strict=True):
        place.mkdir(parents=True, exist_ok=True)
        _bind(descriptor, place)
        os.close(descriptor)
    if _is_on(unit, "PrivateDevices"):
        _private_devices()
    if unit["ProtectSystem"] == ["strict"]:
        _make_read_only(writable)
    _hide_kernel(unit)


def _is_hidden(path: Path) -> bool:
    return path.is_relative_to("/tmp") or path.is_relative_to("/run")


def _private_devices() -> None:
    before = os.open("/dev", os.O_PATH)
    _mount("-t", "tmpfs", "-o", "mode=755", "dev", "/dev")
    for name in _DEVICES:
        Path("/dev", name).touch()
        _bind(before, Path("/dev", name), f"/{name}")
    os.close(before)


def _make_read_only(but: Sequence[Path]) -> None:
    """Every mount but those of the API file systems, and of these places."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    kept = ("/dev", "/proc", "/sys", *map(str, but))
    for place in filter(os.path.exists, dict.fromkeys(mounts)):
        # What does not exist is under another mount now.
        if not any(place == one or place.startswith(f"{one}/") for one in kept):
            _mount("-o", "remount,bind,ro", place)


def _hide_kernel(unit: Unit) -> None:
    if _is_on(unit, "ProtectKernelModules") and Path("/usr/lib/modules").is_dir():
        _mount("-t", "tmpfs", "-o", "mode=000,ro", "modules", "/usr/lib/modules")
    if unit.get("ProtectProc") == ["invisible"]:
        _mount("-t", "proc", "-o", "hidepid=invisible", "proc", "/proc")
    if _is_on(unit, "ProtectKernelTunables"):
        _mount("--bind", "/proc/sys", "/proc/sys")
        _mount("-o", "remount,bind,ro", "/proc/sys")


# ---- all of it ---------------------------------------------------------------------------------


def _drop(unit: Unit) -> None:
    """The capabilities that the unit does not keep are not had from the next program on."""
    libc, libcap = ctypes.CDLL(None), ctypes.CDLL("libcap.so.2")
    kept = set()
    for name in " ".join(unit["CapabilityBoundingSet"]).split():
        found = ctypes.c_int()
        assert libcap.cap_from_name(name.lower().encode(), ctypes.byref(found)) == 0, name
        kept.add(found.value)
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    for number in set(range(last + 1)) - kept:
        assert libc.prctl(_DROP_FROM_BOUNDING_SET, number, 0, 0, 0) == 0
    if _is_on(unit, "NoNewPrivileges"):
        assert libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0


def main(unit: Unit, runtime: Path, visible: Path, command: list[str]) -> None:
    """Become the command."""
    strange = unit.keys() - _HARMLESS - _IMPOSED
    assert not strange, f"what {strange} does to a node has to be said here"
    _hide(unit, runtime, visible)
    _drop(unit)
    _filter_calls(unit)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(read_unit(Path(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[5:])
