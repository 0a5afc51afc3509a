"""The table `flows` in the making: all flows from one role to another, in one row."""

from collections.abc import Iterable, Iterator
from math import isfinite
from typing import final

from mat_sim.engine._flow import UP, Flow
from mat_sim.engine._roamer import Roamer


@final
class _Sum:
    """Of flows from one role to another."""

    __slots__ = ("delays", "delivered", "detour", "headers", "sent")

    def __init__(self) -> None:
        self.sent = 0
        self.delivered = 0
        self.delays = 0.0
        self.detour = 0.0
        self.headers = 0

    def add(self, flow: Flow) -> None:
        """One more flow."""
        sent, delivered, delays = flow.totals()
        self.sent += sent
        self.delivered += delivered
        self.delays += delays
        self.detour += flow.detour
        self.headers += flow.headers


def rows(hosts: Iterable[Roamer], run: int) -> Iterator[dict[str, object]]:
    """The rows of the table."""
    every = list(hosts)
    roles = {host.name: host.role for host in every if host.flows}
    sums: dict[tuple[str, str], _Sum] = {}
    for host in every:
        for _, flow in filter(_goes_out, host.flows):
            sums.setdefault((host.role, roles[flow.receiver]), _Sum()).add(flow)
    for (sender, receiver), found in sorted(sums.items()):
        yield {"run": run, "from_role": sender, "to_role": receiver, **_row(found)}


def _goes_out(directed: tuple[str, Flow]) -> bool:
    """Whether it is the sender who has this flow: the receiver has it too."""
    return directed[0] == UP


def _row(found: _Sum) -> dict[str, object]:
    delivered = found.delivered
    row: dict[str, object] = {
        "sent": found.sent,
        "delivered": delivered,
        "lost": found.sent - delivered,
    }
    if delivered:
        stretch = 1 + found.detour / delivered
        row["delay_mean"] = found.delays / delivered
        row["stretch_mean"] = stretch if isfinite(stretch) else None
        row["header_mean"] = found.headers / delivered
    return row
