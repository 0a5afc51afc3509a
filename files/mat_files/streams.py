"""Randomness: a stream for every part of a run, by name.

A study has one seed. A replication is numbered from 0, and everything random in it (a link's
delays, a node's jitter, the traffic's phases) draws from a stream of its own, by name. Seed, run
and name go into a numpy `SeedSequence`, which is made to give streams that do not overlap or
correlate for entropy that differs anywhere. So what one part draws moves nothing elsewhere, runs
are independent of each other, and the cases of a sweep, which share seed and names, differ by what
was varied and as little as possible by chance (common random numbers).

A name enters by its SHA-256: streams are the same in every process and on every machine.

Sources: numpy's SeedSequence (M. E. O'Neill, "Developing a seed_seq alternative", 2015; numpy NEP
19); common random numbers: A. M. Law, Simulation Modeling and Analysis, 5th ed., 11.2.
"""

import hashlib
from random import Random
from typing import Final

from numpy.random import PCG64, Generator, SeedSequence

_STATE_WORDS: Final = 8
"""32-bit words that a `Random` is seeded with: 256 bits, so that no two ever meet."""


def seed_sequence(seed: int, run: int, name: str) -> SeedSequence:
    """The seed sequence of a stream: `SeedSequence(seed, spawn_key=(run, …))`.

    The spawn key goes on with the SHA-256 of `name` as eight 32-bit numbers, little-endian.
    """
    digest = hashlib.sha256(name.encode()).digest()
    words = (int.from_bytes(digest[at : at + 4], "little") for at in range(0, len(digest), 4))
    return SeedSequence(seed, spawn_key=(run, *words))


def random_stream(seed: int, run: int, name: str) -> Random:
    """The stream as Python's generator, for draws one by one, which it is faster at."""
    state = seed_sequence(seed, run, name).generate_state(_STATE_WORDS)
    return Random(int.from_bytes(state.astype("<u4").tobytes(), "little"))


def array_stream(seed: int, run: int, name: str) -> Generator:
    """The stream as numpy's PCG64, for draws by the array.

    Not the same numbers as `random_stream`; take one of the two for a name.
    """
    return Generator(PCG64(seed_sequence(seed, run, name)))
