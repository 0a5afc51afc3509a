"""Legal transitions of the protocol's state machines, as data.

The machines move only through these tables (`step` refuses anything else), and the diagrams of
docs/protocol.md are drawn from them (`diagram`). After h11's tables of legal transitions.
"""

import enum
from collections.abc import Mapping
from typing import TypeVar

# Members are compared by identity; the hash of `enum.Enum`, written in Python, would cost each
# look-up in a table here more than the look-up itself.


class PeerState(enum.Enum):
    """Where a node stands with one peer."""

    UNKNOWN = "unknown"
    LOCATING = "locating: asking the DNS for the peer's IMS (step 0)"
    QUERYING = "querying: MA Query to the peer's IMS (steps 1 and 7)"
    NOTIFYING = "notifying: HA Notify to the peer's IMS (steps 2 to 4)"
    ESTABLISHED = "established: in the mapping table"
    NON_MAT = "not a MAT node"

    __hash__ = object.__hash__


class PeerInput(enum.Enum):
    """What can happen to a peer."""

    NEEDED = "a packet, or a notice, for or from the peer"
    SERVERS_FOUND = "IMS record found"
    NOT_MAT = "no IMS record"
    LOOKUP_FAILED = "DNS silent"
    ANSWERED_TO_CALLER = "MA Answer, this node speaks first"
    ANSWERED_TO_CALLEE = "MA Answer, the peer spoke first or MUO announces"
    NOTIFIED = "HA Notify Ack from the peer's IMS"
    NO_MAPPING = "the IMS has no mapping"
    SILENT = "no answer from any replica"
    ENDED = "lifetime over, or evicted"

    __hash__ = object.__hash__


PEER: Mapping[tuple[PeerState, PeerInput], PeerState] = {
    (PeerState.UNKNOWN, PeerInput.NEEDED): PeerState.LOCATING,
    (PeerState.LOCATING, PeerInput.SERVERS_FOUND): PeerState.QUERYING,
    (PeerState.LOCATING, PeerInput.NOT_MAT): PeerState.NON_MAT,
    (PeerState.LOCATING, PeerInput.LOOKUP_FAILED): PeerState.UNKNOWN,
    (PeerState.QUERYING, PeerInput.ANSWERED_TO_CALLER): PeerState.NOTIFYING,
    (PeerState.QUERYING, PeerInput.ANSWERED_TO_CALLEE): PeerState.ESTABLISHED,
    (PeerState.QUERYING, PeerInput.NO_MAPPING): PeerState.UNKNOWN,
    (PeerState.QUERYING, PeerInput.SILENT): PeerState.UNKNOWN,
    (PeerState.NOTIFYING, PeerInput.NOTIFIED): PeerState.ESTABLISHED,
    (PeerState.NOTIFYING, PeerInput.SILENT): PeerState.UNKNOWN,
    (PeerState.NOTIFYING, PeerInput.NO_MAPPING): PeerState.UNKNOWN,
    (PeerState.NOTIFYING, PeerInput.ENDED): PeerState.UNKNOWN,
    (PeerState.ESTABLISHED, PeerInput.NO_MAPPING): PeerState.UNKNOWN,
    (PeerState.ESTABLISHED, PeerInput.ENDED): PeerState.UNKNOWN,
    (PeerState.NON_MAT, PeerInput.ENDED): PeerState.UNKNOWN,
}


class RegistrationState(enum.Enum):
    """Where a node stands with its own IMS."""

    DETACHED = "detached: no mobile address"
    LOCATING = "locating: asking the DNS for the own IMS"
    REGISTERING = "registering: IMS Update sent, no replica has answered"
    REGISTERED = "registered: a replica holds the present mapping"

    __hash__ = object.__hash__


class RegistrationInput(enum.Enum):
    """What can happen to the own registration."""

    ATTACHED = "addresses, own IMS unknown"
    MOVED = "addresses, own IMS known"
    SERVERS_FOUND = "IMS record found"
    LOOKUP_FAILED = "no IMS record, or DNS silent: ask again later"
    ACCEPTED = "IMS Update Reply, succeeded"
    LAPSED = "lifetime over without a Reply"
    LOST = "no address left"

    __hash__ = object.__hash__


_OWN = RegistrationState
REGISTRATION: Mapping[tuple[RegistrationState, RegistrationInput], RegistrationState] = {
    (_OWN.DETACHED, RegistrationInput.ATTACHED): _OWN.LOCATING,
    (_OWN.DETACHED, RegistrationInput.MOVED): _OWN.REGISTERING,
    (_OWN.LOCATING, RegistrationInput.ATTACHED): _OWN.LOCATING,
    (_OWN.LOCATING, RegistrationInput.SERVERS_FOUND): _OWN.REGISTERING,
    (_OWN.LOCATING, RegistrationInput.LOOKUP_FAILED): _OWN.LOCATING,
    (_OWN.LOCATING, RegistrationInput.LOST): _OWN.DETACHED,
    (_OWN.REGISTERING, RegistrationInput.MOVED): _OWN.REGISTERING,
    (_OWN.REGISTERING, RegistrationInput.ACCEPTED): _OWN.REGISTERED,
    (_OWN.REGISTERING, RegistrationInput.LOST): _OWN.DETACHED,
    (_OWN.REGISTERED, RegistrationInput.ACCEPTED): _OWN.REGISTERED,
    (_OWN.REGISTERED, RegistrationInput.MOVED): _OWN.REGISTERING,
    (_OWN.REGISTERED, RegistrationInput.LAPSED): _OWN.REGISTERING,
    (_OWN.REGISTERED, RegistrationInput.LOST): _OWN.DETACHED,
}

State = TypeVar("State", bound=enum.Enum)
Input = TypeVar("Input", bound=enum.Enum)


def diagram(table: Mapping[tuple[State, Input], State]) -> str:
    """A Mermaid state diagram of a transition table."""
    lines = ["stateDiagram-v2", f"    [*] --> {next(iter(table))[0].name}"]
    lines += [f"    {old.name} --> {new.name}: {what.value}" for (old, what), new in table.items()]
    return "\n".join(lines) + "\n"
