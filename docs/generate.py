"""The parts of docs/protocol.md that come from the code: `python -m docs.generate` renews them.

What stands between `<!-- begin NAME -->` and `<!-- end NAME -->` is replaced. A test checks that
nothing would change.
"""

import re
from pathlib import Path
from typing import Final

from mat.parameters import Parameters
from mat.states import PEER, REGISTRATION, diagram
from mat.translation import Refusal

DOCUMENT: Final = Path(__file__).parent / "protocol.md"
_MARK: Final = re.compile(r"(<!-- begin (\S+) -->\n).*?(<!-- end \2 -->)", re.DOTALL)


def refreshed(text: str) -> str:
    """The document with its generated parts as the code has them now."""
    parts = {
        "parameters": _parameters(),
        "peer": f"```mermaid\n{diagram(PEER)}```\n",
        "registration": f"```mermaid\n{diagram(REGISTRATION)}```\n",
        "refusals": _refusals(),
    }
    return _MARK.sub(lambda match: match[1] + parts[match[2]] + match[3], text)


def _parameters() -> str:
    rows = [
        f"| `{name}` | {default:g} | {unit} | {reason} |"
        for name, default, unit, reason in Parameters.table()
    ]
    return "\n".join(["| name | default | unit | reason |", "| --- | --- | --- | --- |", *rows, ""])


def _refusals() -> str:
    return "".join(f"- {refusal.value}\n" for refusal in Refusal)


def main() -> None:
    """Renew the document."""
    DOCUMENT.write_text(refreshed(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
