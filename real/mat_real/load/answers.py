"""Reading answers a block at a time: which request each belongs to, and what it says of it.

Every field of a message lies on a 32-bit boundary, so a block of datagrams is an array of words,
and a field of all of them is a column, or one index for each row. Of the extensions of an answer
the nonce is expected first, then the version, as this project's servers put them; docs/protocol.md,
section 5, would allow any order.
"""

from typing import Final, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from mat.codec import FLAG_EXTENSIONS, Extension
from mat_real.load.forms import REPLY, Numbers, Rows
from mat_real.load.ledger import ANSWERS, Index, Ledger
from mat_real.load.volley import SLOT, Volley

_WORD: Final = 4
_HEADER_WORDS: Final = 2
_NONCE_WORDS: Final = 3
_VERSION_WORDS: Final = 4
_MAPPING_BODY_WORDS: Final = 6
"""Key, timestamp and lifetime: what a mapping body has besides its mobile addresses."""
_HOME: Final = slice(2, 6)
"""The words of the home address that an answer is about."""
_FURTHEST: Final = SLOT // _WORD - _NONCE_WORDS - _VERSION_WORDS


def _head(kind: Extension, words: int) -> int:
    """The first word of an extension, as it lies in memory."""
    return int(np.frombuffer(bytes((kind, words, 0, 0)), np.uint32)[0])


_NONCE_HEAD: Final = _head(Extension.NONCE, _NONCE_WORDS)
_VERSION_HEAD: Final = _head(Extension.VERSION, _VERSION_WORDS)
_AUTHENTICATION_HEAD: Final = bytes((Extension.AUTHENTICATION, 8, 0, 0))
_TYPES: Final = {kind: int(answer) for kind, answer in ANSWERS.items()}


@final
class Answers(NamedTuple):
    """Answers to requests of this run: in which rows of the volley, and to which requests."""

    rows: Index
    requests: Index

    def chosen(self, which: NDArray[np.bool_] | Index) -> "Answers":
        """Some of them."""
        return Answers(self.rows[which], self.requests[which])


def match(volley: Volley, count: int, ledger: Ledger) -> Answers:
    """Which of the datagrams just read answer a request: by type, sequence and nonce.

    The others are counted as unexpected.
    """
    octets, words = volley.octets[:count], volley.words[:count]
    requests, good = ledger.requests(words[:, 1].byteswap())
    types = np.array([_TYPES[kind] for kind in ledger.plan.kinds], np.uint8)
    end = octets[:, 3].astype(np.intp)
    sizes = volley.sizes[:count]
    good &= octets[:, 0] == types[requests % ledger.width]
    good &= (octets[:, 2] & FLAG_EXTENSIONS) != 0
    good &= (end >= _HEADER_WORDS) & (sizes >= (end + _NONCE_WORDS) * _WORD)
    good &= end <= _FURTHEST
    end = np.where(good, end, _HEADER_WORDS)
    rows = np.arange(count)
    nonces = ledger.nonces[requests].view(np.uint32).reshape(-1, 2)
    good &= words[rows, end] == _NONCE_HEAD
    good &= (words[rows, end + 1] == nonces[:, 0]) & (words[rows, end + 2] == nonces[:, 1])
    ledger.unexpected += count - int(np.count_nonzero(good))
    return Answers(rows[good], requests[good])


def codes(volley: Volley, answers: Answers) -> NDArray[np.uint8]:
    """The result code of each answer."""
    found: NDArray[np.uint8] = volley.octets[answers.rows, 1]
    return found


def replies(volley: Volley, answers: Answers) -> tuple[Rows, NDArray[np.bool_]]:
    """IMS Update Replies as rows, and which of them carry an authentication extension."""
    rows: Rows = volley.octets[answers.rows, : REPLY.itemsize].view(REPLY)[:, 0]
    whole = volley.sizes[answers.rows] == REPLY.itemsize
    signed = rows["authentication_head"] == np.void(_AUTHENTICATION_HEAD)
    return rows, np.asarray(whole & signed & (rows["length"] == _HEADER_WORDS))


class Mappings(NamedTuple):
    """What answers with a mapping body say."""

    about: NDArray[np.bool_]
    """Whether they are whole, and about the home address that was asked for."""
    present: NDArray[np.bool_]
    """Whether there is a mobile address."""
    versions: Numbers


def mappings(volley: Volley, answers: Answers, homes: NDArray[np.uint32]) -> Mappings:
    """What MA Answers or HA Notify Acks say of these home addresses (words as in memory)."""
    words = volley.words[answers.rows]
    end = volley.octets[answers.rows, 3].astype(np.intp)
    rows = np.arange(len(words))
    at, sizes = end + _NONCE_WORDS, volley.sizes[answers.rows]
    versioned = words[rows, at] == _VERSION_HEAD
    versioned &= sizes >= (at + _VERSION_WORDS) * _WORD
    about = (words[:, _HOME] == homes).all(axis=1) & (versioned | (sizes == at * _WORD))
    timestamps, high, low = (
        words[rows, place].byteswap().astype(np.uint64) for place in (end - 2, at + 1, at + 2)
    )
    half = np.uint64(32)
    versions = np.where(versioned, high << half | low, timestamps << half)
    present = end > _HEADER_WORDS + _MAPPING_BODY_WORDS
    return Mappings(about, present, versions)


def once(answers: Answers, scratch: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Which answers are the last of a block to their request; `scratch` is of all requests."""
    order = np.arange(len(answers.requests))
    scratch[answers.requests] = order
    last: NDArray[np.bool_] = scratch[answers.requests] == order
    return last
