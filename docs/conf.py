from __future__ import annotations

from importlib.metadata import version as _version

from sphinx.pycode import ModuleAnalyzer as _ModuleAnalyzer

# One signature for pmap, the one that runs, instead of the two dozen that are for type checkers.
_api = _ModuleAnalyzer.for_module("anymap._api")
_api.analyze()
_api.overloads.clear()

project = "anymap"
author = "the anymap developers"
copyright = f"2026, {author}"  # noqa: A001 - the name is Sphinx's
release = version = _version("anypmap")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"

html_theme = "furo"
html_title = f"anymap {release}"
