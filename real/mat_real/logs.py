"""Logs: one line an event on standard error, for people or for machines.

What happens to single datagrams is counted, not logged: a flood must not become a flood of lines.
"""

import json
import logging
import sys
import time
from typing import Final, Literal, final

_STANDARD: Final = frozenset(
    vars(logging.LogRecord("", 0, "", 0, "", (), None))
    | {"message": 0, "asctime": 0, "taskName": 0}
)


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """What was logged with `extra=`."""
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


@final
class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """`LEVEL message key=value …`; systemd and containers add the time."""
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items())
        text = f"{record.levelname.lower()}: {record.getMessage()}{fields}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


@final
class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """One object: time (RFC 3339, UTC), level, message, and the fields."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        entry: dict[str, object] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def set_up(level: str, style: Literal["text", "json"]) -> None:
    """Have everything logged on standard error from now on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if style == "json" else _Text())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
