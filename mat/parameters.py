"""Every timer and limit of the protocol, each with its unit and its reason.

One frozen `Parameters` is shared by a whole population of machines. docs/protocol.md prints this
table; a test keeps the two equal. The wire constants (types, codes, sizes) live in `mat.messages`.
"""

from dataclasses import Field, dataclass, field, fields
from typing import Any, Final, Self


def _parameter(default: float, unit: str, reason: str) -> Any:
    return field(default=default, metadata={"unit": unit, "reason": reason})


@dataclass(frozen=True, slots=True)
class Parameters:
    """Timers in seconds, limits in messages, packets or entries (docs/protocol.md, section 10)."""

    initial_timeout: float = _parameter(
        1.0, "s", "first retransmission where no round trip was measured yet (Mobile IPv6: 1 s)"
    )
    minimum_timeout: float = _parameter(
        0.2, "s", "floor of a measured timeout: above the delay variation of most access links"
    )
    maximum_timeout: float = _parameter(
        32.0, "s", "ceiling of the doubling timeout (Mobile IPv6: 32 s)"
    )
    timeout_factor: float = _parameter(
        3.0, "", "timeout as a multiple of the smoothed round trip: room for a server under load"
    )
    timeout_jitter: float = _parameter(
        0.1,
        "",
        "each timeout is stretched by up to this share, so that a crowd does not stay in step",
    )
    query_attempts: int = _parameter(
        5, "messages", "transmissions of a query over all replicas before the peer counts as silent"
    )
    notify_attempts: int = _parameter(
        4,
        "messages",
        "transmissions of an HA Notify; the periodic query of the peer is the net below",
    )
    registration_lifetime: float = _parameter(
        180.0, "s", "lifetime asked for in an IMS Update (LISP: expires after 180 s)"
    )
    maximum_lifetime: float = _parameter(
        600.0,
        "s",
        "longest lifetime an IMS grants; bounds how long a stale mapping can live anywhere",
    )
    lease_guard: float = _parameter(
        5.0, "s", "a registered lifetime ends this long before the lease of the address it names"
    )
    refresh_share: float = _parameter(
        1 / 3, "", "share of the lifetime after which an IMS Update is repeated: two may be lost"
    )
    refresh_jitter: float = _parameter(
        0.1, "", "a refresh comes early by up to this share of its interval, never late"
    )
    settle_time: float = _parameter(
        600.0, "s", "an address held this long can be in no stale mapping: equals maximum_lifetime"
    )
    peer_query_interval: float = _parameter(
        30.0,
        "s",
        "period of the MA Query for a peer in use (or half the mapping's life, if shorter)",
    )
    peer_query_jitter: float = _parameter(
        0.2, "", "a periodic query comes early by up to this share of its interval"
    )
    peer_idle_time: float = _parameter(
        60.0, "s", "a peer without traffic for this long is no longer queried; its mapping runs out"
    )
    non_mat_time: float = _parameter(
        60.0, "s", "longest time a negative answer of the DNS is kept (LISP: 1 min not registered)"
    )
    reuse_memory: float = _parameter(
        60.0, "s", "packets sent to an address for a former holder are long gone after this"
    )
    reuse_grace: float = _parameter(
        2.0, "s", "stragglers for the former holder of an address may come this long after the Ack"
    )
    unknown_source_time: float = _parameter(
        2.0,
        "s",
        "time a source that no IMS knows passes as an ordinary host before it is asked again",
    )
    failure_time: float = _parameter(
        1.0,
        "s",
        "no new look-up for a peer this long after one failed (LISP: one request a second)",
    )
    peer_message_rate: float = _parameter(
        3.0,
        "1/s",
        "HA Notify and queries for one peer (Mobile IPv6: 3 of a type per correspondent)",
    )
    triggered_rate: float = _parameter(
        100.0, "1/s", "look-ups that strangers can cause at one node, in all"
    )
    triggered_burst: float = _parameter(
        200.0, "messages", "the same, at once: a server's worth of new clients"
    )
    hold_per_peer: int = _parameter(
        16, "packets", "held per peer while it is resolved: an initial TCP window and a half"
    )
    hold_total: int = _parameter(
        256, "packets", "held in all: a quarter of the default NFQUEUE length"
    )
    table_size: int = _parameter(
        4096, "entries", "peers in the mapping table, negative entries included"
    )
    acknowledge_waiting: int = _parameter(
        4, "messages", "notices of one peer that wait for the same look-up"
    )
    inquiry_limit: int = _parameter(
        100_000, "entries", "HA Notify procedures in progress at one IMS"
    )
    inquiry_rate: float = _parameter(
        20_000.0, "1/s", "HA Notify procedures that one IMS begins, over time"
    )
    inquiry_burst: float = _parameter(
        100_000.0, "messages", "the same, at once: a crowd that moves together"
    )
    inquiry_waiting: int = _parameter(
        1000,
        "messages",
        "notices of one node that wait for the same inquiry: one for each of its peers",
    )
    foreign_table_size: int = _parameter(
        200_000, "entries", "mappings of other IMS's nodes that an IMS keeps for HA Query"
    )

    @classmethod
    def table(cls) -> list[tuple[str, float, str, str]]:
        """Rows (name, default, unit, reason) in order, for the documentation."""
        described: tuple[Field[Any], ...] = fields(cls)
        return [
            (f.name, getattr(DEFAULTS, f.name), f.metadata["unit"], f.metadata["reason"])
            for f in described
        ]

    @classmethod
    def with_overrides(cls, overrides: dict[str, float]) -> Self:
        """The defaults with some replaced.

        Raises `ValueError` naming the first key that is unknown or whose value is not positive.
        """
        known = {f.name: f for f in fields(cls)}
        for name, value in overrides.items():
            if name not in known:
                raise ValueError(
                    f"{name}: no such protocol parameter; there are {', '.join(known)}"
                )
            if not 0 < value < float("inf"):
                raise ValueError(f"{name}: must be a finite number greater than 0, is {value}")
            if isinstance(getattr(DEFAULTS, name), int) and value != int(value):
                raise ValueError(f"{name}: must be a whole number, is {value}")
        values: dict[str, Any] = dict(overrides)
        for name, value in values.items():
            if isinstance(known[name].default, int):
                values[name] = int(value)
        return cls(**values)


DEFAULTS: Final = Parameters()
