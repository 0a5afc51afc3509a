"""Names and colours of what results show, the same in every figure, table and page.

The colours are Okabe and Ito's, which most colour-blind readers tell apart (M. Okabe, K. Ito: Color
Universal Design, 2008), and a dark grey: a lighter one would look like their purple to many.
"""

from typing import Final

OKABE_ITO: Final = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#e69f00",
    "#56b4e9",
    "#000000",
)
"""For lines that have no colour of their own, in this order; without yellow, too pale on white."""

PART_NAMES: Final = {
    "away": "without coverage",
    "detect": "detect",
    "associate": "associate",
    "address": "address",
    "register": "register (IMS Update)",
    "notify": "notify (HA Notify)",
    "first_packet": "first packet",
    "total": "total",
}
"""What the columns of a handover's parts are called in words."""

PART_COLOURS: Final = {
    "away": "#555555",
    "detect": "#e69f00",
    "associate": "#56b4e9",
    "address": "#0072b2",
    "register": "#009e73",
    "notify": "#cc79a7",
    "first_packet": "#d55e00",
    "total": "#000000",
}

KIND_COLOURS: Final = {"soft": "#009e73", "hard": "#d55e00"}


def colour_of(kind: str, index: int) -> str:
    """The colour of a kind of handover; `index` chooses one where the kind has none of its own."""
    return KIND_COLOURS.get(kind, OKABE_ITO[index % len(OKABE_ITO)])
