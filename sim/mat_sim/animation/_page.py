"""From a scene to one HTML file: the player of `page/`, with the scene inside it as JSON.

The page needs no network and could not reach one: its policy (Content Security Policy) allows only
the script whose hash it names. Names from scenarios enter as JSON in which `<`, `>` and `&` are
escaped, and the script puts them into the page as text.
"""

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Final, final

from mat_sim.animation._scene import Node, Scene

_SCRIPTS: Final = ("timeline.js", "stage.js", "player.js")
_DIGITS: Final = 6
"""Decimals of a time: a microsecond."""


@final
class Animation:
    """An animation: `html` is the whole file; in a notebook it shows itself.

    Makes one of a scene (checked by `Scene.limited`, so it may raise `ScenarioError`). Equal scenes
    make equal bytes.
    """

    __slots__ = ("html",)

    def __init__(self, scene: Scene) -> None:
        self.html = _page(scene.limited())

    def write(self, path: Path) -> None:
        """Write the file. Raises `OSError`."""
        path.write_text(self.html, encoding="utf-8", newline="\n")

    def _repr_html_(self) -> str:
        """The page in a frame of its own, which keeps its styles and its keys to itself."""
        return (
            f'<iframe title="Animation" srcdoc="{html.escape(self.html)}" sandbox="allow-scripts"'
            ' style="width:100%;height:780px;border:0"></iframe>'
        )


def _page(scene: Scene) -> str:
    folder = files("mat_sim.animation") / "page"
    script = "\n".join((folder / name).read_text(encoding="utf-8") for name in _SCRIPTS)
    digest = base64.b64encode(hashlib.sha256(f"\n{script}\n".encode()).digest()).decode()
    return Template((folder / "page.html").read_text(encoding="utf-8")).substitute(
        title=html.escape(f"{scene.title}: animation"),
        digest=digest,
        style=(folder / "style.css").read_text(encoding="utf-8"),
        data=_embedded(_data(scene)),
        script=script,
    )


def _embedded(data: object) -> str:
    """JSON that stays data inside a script element, whatever names it holds."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _data(scene: Scene) -> dict[str, object]:
    """The scene as `player.js` takes it: names once, rows as arrays that refer to them."""
    names = [*(node.name for node in scene.nodes), *(party.name for party in scene.parties)]
    index = {name: number for number, name in enumerate(names)}
    networks = {disc.name: number for number, disc in enumerate(scene.networks)}
    labels = list(dict.fromkeys(message.label for message in scene.messages))
    number = {label: place for place, label in enumerate(labels)}
    return {
        "title": scene.title,
        "description": scene.description,
        "note": scene.note,
        "begin": scene.begin,
        "end": scene.end,
        "networks": [[disc.name, disc.x, disc.y, disc.radius] for disc in scene.networks],
        "parties": [
            [party.name, party.kind, networks.get(party.network or "")] for party in scene.parties
        ],
        "nodes": [_node(node, networks) for node in scene.nodes],
        "labels": labels,
        "messages": [
            [
                round(message.sent, _DIGITS),
                None if message.received is None else round(message.received, _DIGITS),
                index.get(message.from_, -1),
                index.get(message.to, -1),
                number[message.label],
                message.kind,
                message.step,
            ]
            for message in scene.messages
        ],
        "handovers": [
            [
                index[handover.node],
                handover.kind,
                round(handover.begin, _DIGITS),
                None if handover.end is None else round(handover.end, _DIGITS),
                handover.outcome,
            ]
            for handover in scene.handovers
            if handover.node in index
        ],
    }


def _node(node: Node, networks: dict[str, int]) -> dict[str, object]:
    return {
        "name": node.name,
        "path": [_flat(piece) for piece in node.path],
        "links": [
            [networks[link.network], *_rounded((link.start, link.ready, link.end))]
            for link in node.links
        ],
    }


def _flat(piece: Sequence[Sequence[float]]) -> list[float]:
    """Time, x, y, time, x, y … ; a millimetre is close enough."""
    return [
        round(value, _DIGITS if place == 0 else 3) for p in piece for place, value in enumerate(p)
    ]


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, _DIGITS) for value in values]
