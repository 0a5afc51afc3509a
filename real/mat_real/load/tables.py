"""A run as the tables of `mat_files.schema`, and as the summary `load.json`.

What the client of a server cannot know stays empty: how long the server's queue was, how busy it
was, what it holds. docs/load.md says how the other columns are to be read.
"""

import json
import math
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mat import __version__
from mat.address import Address
from mat.messages import EXACT, NAMES, Code, HaNotifyAck, ImsUpdateReply, MaAnswer
from mat_files.results import Provenance, Results
from mat_real.key_file import format_home
from mat_real.load import forms
from mat_real.load.forms import Kind
from mat_real.load.ledger import Fate, Ledger, Note, Noted
from mat_real.load.measures import (
    NAMES_OF_KINDS,
    QUANTILES,
    Measured,
    Run,
    arrivals,
    codes,
    doubts,
    histogram,
    lateness,
    measured,
    quantiles,
    servers_of,
    timeline,
    transmissions,
    worst,
)
from mat_real.load.population import target_name

Row = dict[str, object]

NETWORK: Final = "load"
"""Name of the network before and after, where no scenario has any."""
_ANSWERS: Final[dict[Kind, str]] = {
    Kind.UPDATE: NAMES[ImsUpdateReply],
    Kind.QUERY: NAMES[MaAnswer],
    Kind.NOTIFY: NAMES[HaNotifyAck],
}
_OUTCOMES: Final = {Fate.DONE: "completed", Fate.SUPERSEDED: "superseded"}


def results(run: Run, scenario: str, options: Sequence[str]) -> Results:
    """The tables; `scenario` is its text, `options` what was asked for, as KEY=VALUE."""
    provenance = Provenance(__version__, scenario, "\n".join(options), run.seed)
    ledger = run.ledger
    sent = transmissions(ledger, _first_sizes(len(ledger.plan.kinds)))
    heard = arrivals(ledger)
    return Results.build(
        provenance, _handovers(run), _messages(run, sent, heard), _ims(run, sent, heard)
    )


def _first_sizes(width: int) -> dict[Kind, int]:
    query = forms.QUERY if width == 1 else forms.QUERY_OF_VERSION
    by_kind = {Kind.UPDATE: forms.UPDATE, Kind.QUERY: query, Kind.NOTIFY: forms.NOTIFY}
    return {kind: form.itemsize for kind, form in by_kind.items()}


# ---- handovers -----------------------------------------------------------------------------------


def _handovers(run: Run) -> Iterator[Row]:
    """One row per IMS Update that was begun with what followed from it."""
    ledger, plan = run.ledger, run.ledger.plan
    if plan.kinds[0] is not Kind.UPDATE:
        return
    begun = slice(0, ledger.begun)
    nodes, ordinals = plan.nodes[begun], plan.ordinals[begun]
    population = run.population
    texts = [format_home((key.home_address, EXACT)) for key in population.keys]
    before = _addresses(population.mobile_addresses(nodes, ordinals - 1))
    after = _addresses(population.mobile_addresses(nodes, ordinals))
    parts = _parts(ledger)
    outcomes = [
        _OUTCOMES.get(Fate(fate), "unfinished")
        for fate in worst(ledger.fates.reshape(-1, ledger.width)[begun]).tolist()
    ]
    networks = plan.networks
    columns = zip(
        nodes.tolist(),
        ordinals.tolist(),
        before,
        after,
        ledger.sent[:: ledger.width][begun].tolist(),
        *(part[begun].tolist() for part in parts),
        outcomes,
        strict=True,
    )
    for n, (node, ordinal, old, new, time, register, notify, told, outcome) in enumerate(columns):
        yield {
            "run": 0,
            "node": texts[node],
            "ordinal": ordinal,
            "from_network": networks.before[n] if networks else NETWORK,
            "to_network": networks.after[n] if networks else NETWORK,
            "from_moa": old,
            "to_moa": new,
            "kind": "soft" if networks and networks.soft[n] else "hard",
            "time": time,
            "register": _or_empty(register),
            "notify": _or_empty(notify),
            "first_packet": _or_empty(told),
            "total": _total(outcome, register, notify, told),
            "peers": int(ledger.width > 1),
            "outcome": outcome,
        }


def _parts(ledger: Ledger) -> tuple[NDArray[np.float64], ...]:
    """How long the IMS Update took, the HA Notify, and the MA Query more than that."""
    done = ledger.fates == Fate.DONE
    times = np.where(done, ledger.answered - ledger.sent, np.nan).reshape(-1, ledger.width)
    if ledger.width == 1:
        nothing = np.full(len(times), np.nan)
        return times[:, 0], nothing, nothing
    notify, query = times[:, ledger.position(Kind.NOTIFY)], times[:, ledger.position(Kind.QUERY)]
    return times[:, 0], notify, np.maximum(query - notify, 0.0)


def _or_empty(value: float) -> float | None:
    return None if math.isnan(value) else value


def _total(outcome: str, *parts: float) -> float | None:
    return math.fsum(np.nan_to_num(parts)) if outcome == "completed" else None


def _addresses(packed: forms.Addresses) -> list[str]:
    return [format_home((Address(address), EXACT)) for address in packed.tolist()]


# ---- messages and servers ------------------------------------------------------------------------


def _messages(run: Run, sent: Noted, heard: Noted) -> Iterator[Row]:
    late = run.ledger.noted(Note.LATE)
    again = run.ledger.noted(Note.SENT_AGAIN)
    for number, target in enumerate(run.targets):
        name = target_name(target)
        for kind in run.ledger.plan.kinds:
            out, back, more, twice = (
                _of(run, noted, kind, number) for noted in (sent, heard, again, late)
            )
            delivered = min(len(out.times), len(back.times))
            yield {
                "run": 0,
                "type": NAMES_OF_KINDS[kind],
                "from_role": "MN",
                "to_role": name,
                "sent": len(out.times),
                "delivered": delivered,
                "lost": len(out.times) - delivered,
                "retransmitted": len(more.times),
                "bytes": int(out.sizes.sum(dtype=np.int64)),
            }
            yield {
                "run": 0,
                "type": _ANSWERS[kind],
                "from_role": name,
                "to_role": "MN",
                "sent": len(back.times),
                "delivered": len(back.times),
                "lost": 0,
                "retransmitted": len(twice.times),
                "bytes": int(back.sizes.sum(dtype=np.int64)),
            }


def _of(run: Run, noted: Noted, kind: Kind, server: int) -> Noted:
    own = noted.requests % run.ledger.width == run.ledger.position(kind)
    own &= servers_of(run, noted.requests) == server
    return noted.chosen(own)


def _ims(run: Run, sent: Noted, heard: Noted) -> Iterator[Row]:
    line = timeline(run.ledger)
    edges = np.append(line.starts, line.starts[-1] + line.interval)
    to, by = servers_of(run, sent.requests), servers_of(run, heard.requests)
    refusing = heard.codes != Code.SUCCEEDED
    for number, target in enumerate(run.targets):
        received = histogram(sent.times[to == number], edges).tolist()
        answered = histogram(heard.times[by == number], edges).tolist()
        refused = histogram(heard.times[(by == number) & refusing], edges).tolist()
        for k, start in enumerate(line.starts.tolist()):
            yield {
                "run": 0,
                "ims": target_name(target),
                "start": start,
                "interval": line.interval,
                "received": received[k],
                "answered": answered[k],
                "refused": refused[k],
            }


# ---- the summary ---------------------------------------------------------------------------------


def summary(run: Run, options: Sequence[str]) -> bytes:
    """The file `load.json`: what the terminal shows, for programs."""
    ledger, line = run.ledger, timeline(run.ledger)
    late = quantiles(lateness(ledger))
    content = {
        "format": 1,
        "version": __version__,
        "what": run.what,
        "options": dict(option.split("=", 1) for option in options),
        "servers": [target_name(target) for target in run.targets],
        "nodes": len(run.population),
        "seconds": ledger.ended,
        "measured": [_measured(about) for about in measured(ledger)],
        "codes": {
            NAMES_OF_KINDS[kind]: {str(code): number for code, number in by_code.items()}
            for kind, by_code in codes(ledger).items()
        },
        "outdated": len(ledger.noted(Note.OUTDATED).times),
        "wrong": len(ledger.noted(Note.WRONG).times),
        "forged": run.forged,
        "late_answers": len(ledger.noted(Note.LATE).times),
        "unexpected": ledger.unexpected,
        "unreachable": run.unreachable,
        "generator": {
            "late": _named(late),
            "dropped": run.dropped,
            "unsent": run.unsent,
            "doubts": doubts(run),
        },
        "timeline": {
            "interval": line.interval,
            "begun": line.begun.tolist(),
            "repeated": line.repeated.tolist(),
            "answered": line.answered.tolist(),
            **{
                f"p{100 * share:g}": [_finite(value) for value in row]
                for share, row in zip(QUANTILES, line.quantiles.tolist(), strict=True)
            },
        },
    }
    return (json.dumps(content, indent=1) + "\n").encode()


def _measured(about: Measured) -> Row:
    return {
        "name": about.name,
        "begun": about.begun,
        "done": about.done,
        "refused": about.refused,
        "lost": about.lost,
        "superseded": about.superseded,
        "repeated": about.repeated,
        "response": _named(about.quantiles()),
    }


def _named(values: Sequence[float]) -> dict[str, float | None]:
    pairs = zip(QUANTILES, values, strict=True)
    return {f"p{100 * share:g}": _finite(value) for share, value in pairs}


def _finite(value: float) -> float | None:
    return None if math.isnan(value) else value
