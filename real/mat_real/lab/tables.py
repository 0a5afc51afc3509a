"""The tables `messages` and `ims` (docs/results.md), from what was recorded while it was played.

They count what concerns the scenario's family, from the begin of the run to its end. How long the
queue of an IMS was, and how busy it was, is not seen from outside: those columns are empty.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, final

from mat.address import Address
from mat.messages import Code, HaAnswer, HaNotifyAck, ImsUpdate, ImsUpdateReply, MaAnswer
from mat_real.lab.plan import Node, Plan
from mat_real.lab.play import Played
from mat_real.lab.recording import DATA, UNDER_WAY, Transmission

INTERVAL: Final = 10.0
"""Seconds of one row of the table `ims`, as in the simulator."""
_LATE: Final = 0.1
"""Seconds by which a run may end late."""
_ANSWERS: Final = (ImsUpdateReply, MaAnswer, HaNotifyAck, HaAnswer)


@final
@dataclass(frozen=True, slots=True)
class Sent:
    """What was sent in a run: all of one family, and until when it was recorded, s."""

    plan: Plan
    played: Played
    transmissions: Sequence[Transmission]
    until: float

    @classmethod
    def during(cls, plan: Plan, played: Played, family: Literal[4, 6], until: float) -> "Sent":
        """Raises `LabError` if packets were missed."""
        found = played.recording.transmissions()
        return cls(plan, played, [one for one in found if one.ipv4 is (family == 4)], until)

    def message_rows(self) -> Iterator[dict[str, object]]:
        """The rows of the table `messages`, in the order of the simulator's."""
        begin, end = self.played.begin, self.played.end
        grouped: dict[tuple[str, str, str], list[Transmission]] = defaultdict(list)
        for one in self.transmissions:
            if begin <= one.sent <= end:
                grouped[one.kind, self.role(one.sender), self.role(one.receiver)].append(one)
        for (kind, sender, receiver), sent in sorted(grouped.items()):
            yield {
                "run": 0,
                "type": kind,
                "from_role": sender,
                "to_role": receiver,
                "sent": len(sent),
                "delivered": sum(one.received is not None and one.received <= end for one in sent),
                "lost": sum(self._lost(one) for one in sent),
                "retransmitted": sum(one.repeated for one in sent),
                "bytes": sum(_size(one) for one in sent),
                "ip_bytes": sum(one.datagram.size for one in sent),
            }

    def role(self, host: str) -> str:
        """What a host is in the tables: MN, CN, or its own name."""
        part = self.plan.everyone[host]
        if isinstance(part, Node):
            return "MN" if part.mobile else "CN"
        return host

    def _lost(self, one: Transmission) -> bool:
        return one.received is None and one.sent < self.until - UNDER_WAY

    def ims_rows(self) -> Iterator[dict[str, object]]:
        """The rows of the table `ims`."""
        length = self.played.end - self.played.begin
        for server in self.plan.ims:
            starts = [number * INTERVAL for number in range(_intervals(length))]
            for start in starts:
                interval = length - start if start == starts[-1] else INTERVAL
                begin = self.played.begin + start
                yield {
                    "run": 0,
                    "ims": server.name,
                    "start": start,
                    "interval": interval,
                    **self._served(server.name, begin, begin + interval),
                }

    def _served(self, ims: str, begin: float, end: float) -> dict[str, object]:
        """What one IMS received and sent from `begin` to before `end`."""
        received = sum(
            one.message is not None
            and one.receiver == ims
            and one.received is not None
            and begin <= one.received < end
            for one in self.transmissions
        )
        codes = [
            one.message.code
            for one in self.transmissions
            if isinstance(one.message, _ANSWERS) and one.sender == ims and begin <= one.sent < end
        ]
        return {
            "received": received,
            "answered": len(codes),
            "refused": sum(code != Code.SUCCEEDED for code in codes),
            "mappings": self._mappings(ims, end) if self.played.recording.whole else None,
        }

    def _mappings(self, ims: str, end: float) -> int:
        """Home addresses whose registration this IMS had accepted before `end`."""
        updates: dict[tuple[str, int], Address] = {}
        accepted: set[Address] = set()
        for one in self.transmissions:
            message = one.message
            if one.sent >= end:
                break
            if isinstance(message, ImsUpdate):
                updates[one.sender, message.sequence] = message.home_address
            elif isinstance(message, ImsUpdateReply) and message.code == Code.SUCCEEDED:
                home = updates.get((one.receiver, message.sequence))
                if home is not None and one.sender == ims:
                    accepted.add(home)
        return len(accepted)


def _intervals(length: float) -> int:
    """How many rows an IMS has; the little by which a run ends late is part of the last."""
    return max(1, math.ceil((length - _LATE) / INTERVAL))


def _size(one: Transmission) -> int:
    """Bytes as the table counts them: of data the packets, of all else what UDP carries."""
    return one.datagram.size if one.kind == DATA else len(one.datagram.payload)
