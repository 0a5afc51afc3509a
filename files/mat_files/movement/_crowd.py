"""A crowd: everybody leaves one network for another within a short time, as after a match.

Where the old link lasts on (`overlap`), a handover is soft, and otherwise hard: the old link is
lost at the time at which the new network is there.
"""

from collections.abc import Sequence
from typing import Final, assert_never

import numpy as np
from numpy.typing import NDArray

from mat_files.attachment import AttachmentEvents, NumberedNames
from mat_files.scenario import Crowd
from mat_files.traces._trace import FloatArray

_BELL: Final = 3.0
"""Half of the window of a normal spread, in standard deviations."""


def crowd_events(
    crowd: Crowd, networks: Sequence[str], count: int, random: np.random.Generator
) -> AttachmentEvents:
    """`count` nodes that attach at 0 and change network once."""
    old, new = (_in_turn(names, networks, count) for names in crowd.sides(networks))
    change = crowd.start + crowd.window * _shares(crowd, count, random)
    who = np.argsort(change, kind="stable").astype(np.int32)
    time, mover, attach = _changes(change[who], who, crowd.overlap)
    return AttachmentEvents(
        NumberedNames(count),
        networks,
        time=np.concatenate((np.zeros(count), time)),
        node=np.concatenate((np.arange(count, dtype=np.int32), mover)),
        attach=np.concatenate((np.ones(count, np.bool_), attach)),
        network=np.concatenate((old, np.where(attach, new[mover], old[mover]))),
        interface=_second_at_change(count, attach) if crowd.overlap else None,
    )


def _changes(
    time: FloatArray, who: NDArray[np.int32], overlap: float
) -> tuple[FloatArray, NDArray[np.int32], NDArray[np.bool_]]:
    """The detaches and attaches of those who change at these times, in order of time."""
    if not overlap:
        return np.repeat(time, 2), np.repeat(who, 2), np.tile((False, True), len(who))
    times = np.concatenate((time, time + overlap))
    order = np.argsort(times, kind="stable")
    return times[order], np.tile(who, 2)[order], order < len(who)


def _second_at_change(count: int, attach: NDArray[np.bool_]) -> NDArray[np.int8]:
    """Interfaces: the new link is on the second, beside the old one."""
    return np.concatenate((np.zeros(count, np.int8), attach.astype(np.int8)))


def _in_turn(names: Sequence[str], networks: Sequence[str], count: int) -> NDArray[np.int32]:
    known = {name: index for index, name in enumerate(networks)}
    return np.resize(np.array([known[name] for name in names], np.int32), count)


def _shares(crowd: Crowd, count: int, random: np.random.Generator) -> FloatArray:
    """When each node changes, as a share of the window."""
    match crowd.spread:
        case "uniform":
            return random.random(count)
        case "normal":
            from scipy.special import ndtr, ndtri  # slow to import

            low = float(ndtr(-_BELL))
            drawn = ndtri(low + (1 - 2 * low) * random.random(count))
            return np.asarray(0.5 + drawn / (2 * _BELL))
        case "even":
            return (random.permutation(count) + 0.5) / count
        case _:
            assert_never(crowd.spread)
