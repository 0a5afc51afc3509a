"""An evaluation from begin to end: parts are measured, and written as a report with figures."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from mat_paper import PARTS, crowd, handover, ladders, ping, udp
from mat_paper.hosts import PROGRAMS
from mat_paper.machine import busy
from mat_paper.ping import Report
from mat_paper.record import Record
from mat_paper.report import write_report

_MEASURES: Final[dict[str, Callable[[Record, Path, Report], None]]] = {
    "ping": ping.measure,
    "udp": udp.measure,
    "ladders": ladders.measure,
    "handover": handover.measure,
    "crowd": crowd.measure,
}
_LOGS: Final = "logs"

Told = Callable[[str, int, int], None]
"""Called with a part, how many of its steps are done, and how many there are."""


def check_programs() -> None:
    """That all that is started is there, before anything is. Raises `LabError`."""
    from mat_real.lab import lab
    from mat_real.lab.programs import require

    require(PROGRAMS | lab.PROGRAMS | lab.PROGRAMS_OF_NODES)


def evaluate(record: Record, parts: Sequence[str], told: Told) -> None:
    """Measure these parts, as far as they are not yet whole, and write the report.

    Logs of a part that fails stay in the record's folder `logs`. Raises `PaperError`, `LabError`,
    `ScenarioError` and `ResultsError`.
    """
    for part in PARTS:
        if part in parts and part not in record.parts:
            _measure(record, part, told)
    write_report(record)


def _measure(record: Record, part: str, told: Told) -> None:
    logs = record.directory / _LOGS / part
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    record.begin_part(part, busy())
    _MEASURES[part](record, logs, lambda done, whole: told(part, done, whole))
    record.end_part(part)
    shutil.rmtree(record.directory / _LOGS)
