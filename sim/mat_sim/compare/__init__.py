"""Two sets of results side by side: the simulator's and the namespace lab's, or any other two.

Start reading at `_comparison.py`, which says what agrees; `_show.py` prints and draws it, `_net.py`
takes off what the lab itself adds, and `command.py` is `mat sim compare`, which has the lab play a
scenario as a program of its own. docs/compare.md says what simulator and lab are known to differ
in. Public names load on first use, so that the command's help stays cheap.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mat_sim.compare._comparison import (
        COLUMNS,
        NET_COLUMNS,
        Comparison,
        Count,
        Line,
        Side,
        Tolerance,
        Traffic,
        compare,
    )
    from mat_sim.compare._net import net
    from mat_sim.compare._show import figure, print_comparison, write_comparison

_ELSEWHERE: Final = {
    "figure": "_show",
    "net": "_net",
    "print_comparison": "_show",
    "write_comparison": "_show",
}

__all__ = [
    "COLUMNS",
    "NET_COLUMNS",
    "Comparison",
    "Count",
    "Line",
    "Side",
    "Tolerance",
    "Traffic",
    "compare",
    "figure",
    "net",
    "print_comparison",
    "write_comparison",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _ELSEWHERE.get(name, "_comparison")
    return getattr(import_module(f"mat_sim.compare.{module}"), name)
