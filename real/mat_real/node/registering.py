"""What becomes of a node's registrations, in words for its administrator."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

from mat.address import Address, format_address, is_ipv4
from mat.authentication import Key
from mat.effects import EventKind
from mat.node import MobileNode
from mat.states import RegistrationState
from mat_real.key_file import format_home

PATIENCE: Final = 5.0
"""Seconds that a registration may take before it is a problem."""

_log = logging.getLogger("mat.node")


@final
@dataclass(slots=True)
class _Seen:
    """How a registration stood when it was looked at last."""

    state: RegistrationState
    since: float
    unauthentic: int
    """Answers that did not prove to be from the IMS, until then."""
    told: tuple[Address, ...] = ()


@final
class RegistrationWatch:
    """Looks at the machines now and then; says in the log where they are registered."""

    def __init__(self, keys: Sequence[Key], machines: Mapping[bool, MobileNode]) -> None:
        self._keys = keys
        self._machines = machines
        self._seen: dict[Key, _Seen] = {}

    def problems(self, now: float, events: Mapping[EventKind, int]) -> Iterator[str]:
        """What keeps home addresses from being registered, for longer than it should."""
        for key in self._keys:
            machine = self._machines[is_ipv4(key.home_address)]
            seen = self._look(now, key, machine, events[EventKind.UNAUTHENTIC])
            if now - seen.since >= PATIENCE:
                refused = events[EventKind.UNAUTHENTIC] > seen.unauthentic
                yield from _problem(key, machine, refused=refused)

    def _look(self, now: float, key: Key, machine: MobileNode, unauthentic: int) -> _Seen:
        state, seen = machine.registration_state, self._seen.get(key)
        if seen is None or seen.state is not state:
            told = seen.told if seen is not None else ()
            seen = self._seen[key] = _Seen(state, now, unauthentic, told)
        if state is RegistrationState.REGISTERED and machine.registered != seen.told:
            seen.told = machine.registered
            at = " ".join(map(format_address, machine.registered))
            _log.info("registered", extra={"home": _home(key), "at": at, "ims": _ims(machine)})
        return seen


def _problem(key: Key, machine: MobileNode, *, refused: bool) -> Iterator[str]:
    match machine.registration_state:
        case RegistrationState.DETACHED:
            what = "no interface that the node may use has a carrier, an address and a way out"
            yield f"{_home(key)} is not connected: {what}; see `ip address`, and node.interfaces"
        case RegistrationState.LOCATING:
            mend = "publish its record (`mat dns record`), or name the IMS in node.ims"
            yield f"{_home(key)} has no IMS yet, so far as the DNS says: {mend}"
        case RegistrationState.REGISTERING if refused:
            what = f"the IMS {_ims(machine)} does not know key {key.key_id} of {_home(key)}"
            mend = "is it what `mat key new` wrote there, and was the IMS reloaded since?"
            yield f"{what}, or another server answers: {mend}"
        case RegistrationState.REGISTERING:
            mend = "does it run, and do packets to its UDP port get there?"
            yield f"the IMS {_ims(machine)} does not answer about {_home(key)}: {mend}"
        case _:
            pass


def _home(key: Key) -> str:
    return format_home((key.home_address, key.prefix_length))


def _ims(machine: MobileNode) -> str:
    return " ".join(f"{format_address(at.address)} port {at.port}" for at in machine.servers)
