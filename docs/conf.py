from __future__ import annotations

from importlib.metadata import version as _version

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
