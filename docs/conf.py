"""Builds the documentation as a site: `make docs`, or `sphinx-build -W docs build/site`.

The pages are plain Markdown, to be read in the repository too. What index.md links to is the
navigation, in its order and under its headings; so a new page takes one line there.
"""

import re
from importlib import import_module
from typing import Any, Final

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx
from sphinx.highlighting import lexers

from mat import __version__

project = "mat-mobility"
release = version = __version__
copyright = "the authors of mat-mobility, Apache-2.0"  # noqa: A001 - Sphinx's name
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["README.md"]
myst_heading_anchors = 4
suppress_warnings = [
    "myst.header",  # the first heading of a page may be followed by one of the third level
    "ref.python",  # a type of an annotation whose name several modules have
]
default_role = "literal"  # docstrings have `code` as Markdown has it
highlight_language = "none"
for _language in ("knot", "mermaid", "named", "unbound"):
    lexers[_language] = TextLexer()

# --- API ------------------------------------------------------------------------------------------

# Autodoc lists what a module has, and these load their names on first use.
for _module in map(import_module, ("mat_sim.animation", "mat_sim.compare")):
    vars(_module).update({name: getattr(_module, name) for name in _module.__all__})
autodoc_default_options = {"members": True}
autodoc_member_order = "groupwise"
autodoc_class_signature = "mixed"
autodoc_typehints_format = "short"

# --- HTML: nothing comes from another host when a page is read ------------------------------------

html_theme = "furo"
html_title = f"mat-mobility {__version__}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False

_SECTION: Final = re.compile(r"^## (.+)$", re.MULTILINE)
_PAGE: Final = re.compile(r"^- \[[^]]+\]\(([a-z0-9-]+)\.md\)", re.MULTILINE)


def _navigation(_app: Sphinx, page: str, source: list[str]) -> None:
    """Give the index a hidden table of contents for each of its sections."""
    if page != "index":
        return
    _, *parts = _SECTION.split(source[0])
    for caption, text in zip(parts[::2], parts[1::2], strict=True):
        pages = "\n".join(_PAGE.findall(text))
        source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{pages}\n```\n"


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry to this file."""
    app.connect("source-read", _navigation)
    return {"parallel_read_safe": True}
