"""Who talks to whom."""

from bisect import bisect_right
from collections.abc import Sequence
from heapq import nlargest
from itertools import accumulate
from random import Random
from typing import Final, TypeAlias, final

from mat_files.scenario import Traffic
from mat_sim.engine._roamer import Roamer

Pair: TypeAlias = tuple[Roamer, Roamer]
"""The first is a mobile node, and the one that speaks first."""
_MANY: Final = 16
"""Peers of a node from which on it is quicker to look at everybody than to draw one by one."""


def pairs_of(
    traffic: Traffic, mobile: Sequence[Roamer], fixed: Sequence[Roamer], random: Random
) -> list[Pair]:
    """All pairs, each once."""
    peers = traffic.peers
    if traffic.pairs == "correspondent":
        return [
            (one, fixed[(number + step) % len(fixed)])
            for number, one in enumerate(mobile)
            for step in range(min(peers, len(fixed)))
        ]
    if traffic.pairs == "mobile":
        return list(zip(mobile[::2], mobile[1::2], strict=False))
    if traffic.pairs == "random":
        return _at_random(traffic, mobile, fixed, random)
    return []


def _at_random(
    traffic: Traffic, mobile: Sequence[Roamer], fixed: Sequence[Roamer], random: Random
) -> list[Pair]:
    crowd = [
        *(fixed if traffic.among != "mobile" else ()),
        *(mobile if traffic.among != "correspondents" else ()),
    ]
    lottery = _Lottery(crowd, traffic.popularity, random)
    pairs: list[Pair] = []
    known: set[tuple[int, int]] = set()
    for one in mobile:
        for other in lottery.draw(traffic.peers, one):
            key = min(one.number, other.number), max(one.number, other.number)
            if key not in known:
                known.add(key)
                pairs.append((one, other))
    return pairs


@final
class _Lottery:
    """Draws peers; the popularity of the n-th of the crowd is n to the power of -`exponent`."""

    def __init__(self, crowd: Sequence[Roamer], exponent: float, random: Random) -> None:
        self._crowd = crowd
        self._weights = [float(rank) ** -exponent for rank in range(1, len(crowd) + 1)]
        self._sums = list(accumulate(self._weights))
        self._random = random

    def draw(self, peers: int, own: Roamer) -> list[Roamer]:
        """So many different ones, but not the node itself; all, if there are no more."""
        if peers > _MANY or 2 * peers >= len(self._crowd):
            return self._of_all(peers, own)
        drawn: dict[int, Roamer] = {}
        while len(drawn) < peers:
            other = self._crowd[bisect_right(self._sums, self._random.random() * self._sums[-1])]
            if other is not own:
                drawn[other.number] = other
        return list(drawn.values())

    def _of_all(self, peers: int, own: Roamer) -> list[Roamer]:
        """The same, as the winners of a race with exponential times (Efraimidis, Spirakis 2006)."""
        race = [
            (-self._random.expovariate(weight), place)
            for place, weight in enumerate(self._weights)
            if self._crowd[place] is not own
        ]
        return [self._crowd[place] for _, place in nlargest(peers, race)]
