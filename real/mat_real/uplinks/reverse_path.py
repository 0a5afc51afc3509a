"""The kernel's check of where IPv4 packets come from (RFC 3704; net.ipv4.conf.*.rp_filter).

A packet that has been translated says that it is from a home address, to which the route is that of
table 49628, not the interface that it came in by. Strict checking (1) would drop it; loose (2) asks
only that there be a route. The greater of the interface's value and that of `all` counts.

What was there before is kept in a file, too, so that the successor of a daemon that was killed can
put it back: the kernel does not tell what somebody has set to loose from what a node has.
"""

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, final

STRICT: Final = 1
LOOSE: Final = 2
_SETTINGS: Final = Path("/proc/sys/net/ipv4/conf")
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE: Final = Path("/proc/thread-self/ns/net")


@final
class ReversePath:
    """Strict checking made loose on interfaces of the present network namespace, and undone.

    `memory` is the file for a successor; without one, a killed daemon's interfaces stay loose.
    """

    def __init__(self, memory: Path | None = None) -> None:
        self._memory = memory
        self._before: dict[str, int] = {} if memory is None else _remembered(memory)

    def loosen(self, interfaces: Iterable[str]) -> list[str]:
        """Make checking loose where it is strict; in words, where that is not permitted."""
        return [text for name in sorted(set(interfaces)) if (text := self._loosen(name))]

    def restore(self) -> None:
        """Put back what was there, on interfaces that are still there and loose."""
        for name, before in self._before.items():
            if _read(name) == LOOSE:
                _setting(name).write_text(f"{before}\n")
        self._before.clear()
        if self._memory is not None:
            self._memory.unlink(missing_ok=True)

    def _loosen(self, name: str) -> str:
        before = _read(name)
        if before is None or max(before, _read("all") or 0) != STRICT:
            return ""
        self._before[name] = before
        self._remember()
        try:
            _setting(name).write_text(f"{LOOSE}\n")
        except OSError as error:
            return (
                f"interface {name}: packets of peers will be dropped, since the reverse path is "
                f"checked strictly and that cannot be changed from here ({error.strerror}); "
                f"set net.ipv4.conf.{name}.rp_filter to {LOOSE}"
            )
        return ""

    def _remember(self) -> None:
        """Before anything is changed, so that no kill comes between."""
        if self._memory is not None:
            # Where there is no place for the file, all but the end after a kill is as it should be.
            with suppress(OSError):
                self._memory.write_text(json.dumps({"where": _where(), "before": self._before}))


def _remembered(memory: Path) -> dict[str, int]:
    """What a predecessor has found, unless that was another boot or another namespace."""
    try:
        found: dict[str, Any] = json.loads(memory.read_text())
        return dict(found["before"]) if found["where"] == _where() else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _where() -> str:
    """This boot's network namespace."""
    return f"{_BOOT.read_text().strip()} {_NAMESPACE.readlink()}"


def _setting(name: str) -> Path:
    return _SETTINGS / name / "rp_filter"


def _read(name: str) -> int | None:
    try:
        return int(_setting(name).read_text())
    except FileNotFoundError:
        return None
