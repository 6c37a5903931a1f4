from __future__ import annotations

import sys as _sys
from importlib.metadata import version as _version
from pathlib import Path as _Path
from typing import TYPE_CHECKING
from typing import Any as _Any

from sphinx.pycode import ModuleAnalyzer as _ModuleAnalyzer

_sys.path.insert(0, str(_Path(__file__).parent))

from inventories import write as _write_inventories

if TYPE_CHECKING:
    from sphinx.application import Sphinx

# One signature for pmap, the one that runs, instead of the two dozen that are for type checkers.
_api = _ModuleAnalyzer.for_module("anymap._map")
_api.analyze()
_api.overloads.clear()

project = "anymap"
author = "the anymap developers"
copyright = f"2026, {author}"  # noqa: A001 - the name is Sphinx's
release = version = _version("anypmap")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.intersphinx",
    "sphinx_copybutton",
]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"

nitpicky = True
# Variables of types, and the names that type checkers alone have for what the text spells out.
nitpick_ignore = [("py:class", name) for name in ("R", "T", "P", "Engine", "OnError")]

intersphinx_mapping = _write_inventories()

copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

html_theme = "furo"
html_title = f"anymap {release}"
html_static_path = ["static"]
html_css_files = ["tables.css"]


def _keep_sentences(_app: Sphinx, what: str, _name: str, _obj: _Any, _options: _Any, lines: list[str]) -> None:
    """Keep Napoleon from taking the first words of an attribute's docstring, up to a colon, for its type."""
    if what in {"attribute", "data", "property"}:
        lines[:0] = ["..", ""]  # a comment, and nothing in it


def setup(app: Sphinx) -> None:
    """Have docstrings changed before Napoleon, whose priority is 500, reads them."""
    app.connect("autodoc-process-docstring", _keep_sentences, priority=400)
