"""The kernel's check of where IPv4 packets come from (RFC 3704; net.ipv4.conf.*.rp_filter).

A packet that has been translated says that it is from a home address, to which the route is that of
table 49628, not the interface that it came in by. Strict checking (1) would drop it; loose (2) asks
only that there be a route. The greater of the interface's value and that of `all` counts.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final, final

STRICT: Final = 1
LOOSE: Final = 2
_SETTINGS: Final = Path("/proc/sys/net/ipv4/conf")


@final
class ReversePath:
    """Strict checking made loose on interfaces, and undone."""

    def __init__(self) -> None:
        self._before: dict[str, int] = {}

    def loosen(self, interfaces: Iterable[str]) -> list[str]:
        """Make checking loose where it is strict; in words, where that is not permitted."""
        return [text for name in sorted(set(interfaces)) if (text := self._loosen(name))]

    def restore(self) -> None:
        """Put back what was there, on interfaces that are still there and loose."""
        for name, before in self._before.items():
            if _read(name) == LOOSE:
                _setting(name).write_text(f"{before}\n")
        self._before.clear()

    def _loosen(self, name: str) -> str:
        before = _read(name)
        if before is None or max(before, _read("all") or 0) != STRICT:
            return ""
        try:
            _setting(name).write_text(f"{LOOSE}\n")
        except OSError as error:
            return (
                f"interface {name}: packets of peers will be dropped, since the reverse path is "
                f"checked strictly and that cannot be changed from here ({error.strerror}); "
                f"set net.ipv4.conf.{name}.rp_filter to {LOOSE}"
            )
        self._before.setdefault(name, before)
        return ""


def _setting(name: str) -> Path:
    return _SETTINGS / name / "rp_filter"


def _read(name: str) -> int | None:
    try:
        return int(_setting(name).read_text())
    except FileNotFoundError:
        return None
