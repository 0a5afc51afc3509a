"""Animations: a small scenario as one HTML file, with nodes, networks and messages.

`_scene.py` is what is shown, `_staging.py` makes it of a scenario, `_page.py` turns it into HTML;
`_animate.py` does all of it.
The player is in `page/`: `timeline.js` is time and its pace, `stage.js` draws, `player.js` is the
controls. Public names load on first use, so that the command's help stays cheap.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mat_sim.animation._animate import animate
    from mat_sim.animation._page import Animation
    from mat_sim.animation._scene import (
        MOST_DATA,
        MOST_NODES,
        MOST_POINTS,
        MOST_SIGNALS,
        Disc,
        Handover,
        Link,
        Node,
        Party,
        Scene,
    )
    from mat_sim.animation._staging import scene

_SCENE: Final = "mat_sim.animation._scene"
_ELSEWHERE: Final = {
    "Animation": "mat_sim.animation._page",
    "animate": "mat_sim.animation._animate",
    "scene": "mat_sim.animation._staging",
}

__all__ = [
    "MOST_DATA",
    "MOST_NODES",
    "MOST_POINTS",
    "MOST_SIGNALS",
    "Animation",
    "Disc",
    "Handover",
    "Link",
    "Node",
    "Party",
    "Scene",
    "animate",
    "scene",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_ELSEWHERE.get(name, _SCENE)), name)
