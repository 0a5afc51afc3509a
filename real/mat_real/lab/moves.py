"""What was done to the links of mobile nodes, and when."""

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, final

Act: TypeAlias = Literal["attach", "detach", "prefer", "configure"]
"""A carrier comes or goes; a network that is there already becomes the preferred one; addresses are
configured."""


@final
@dataclass(frozen=True, slots=True)
class Move:
    """A change that was carried out, at `time`; all times in s of CLOCK_MONOTONIC.

    Of one that was played: when it was `due`, when the network came in `reach`, and what passed
    since, `detect` and `associate`; `address` is what is to pass until the lab configures one.
    """

    time: float
    node: str
    act: Act
    network: str
    interface: int
    due: float | None = None
    reach: float | None = None
    detect: float | None = None
    associate: float | None = None
    address: float | None = None

    @property
    def late(self) -> float:
        """By how much it was later than it was due, s."""
        return 0.0 if self.due is None else self.time - self.due

    def planned(self, due: float, reach: float, *parts: float | None) -> "Move":
        """The same, with what was planned; `parts` are `detect`, `associate` and `address`."""
        detect, associate, address = parts
        return replace(
            self, due=due, reach=reach, detect=detect, associate=associate, address=address
        )
