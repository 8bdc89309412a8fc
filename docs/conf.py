"""How Sphinx makes the site of these pages; ``make html`` does it.

Pages are Markdown that GitHub shows too. What is made at build time (the API, settings, errors,
the command line) comes from the package that is imported, so it cannot become untrue.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

import daskbroker

project = "daskbroker"
author = "the daskbroker developers"
copyright = author
version = release = daskbroker.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "myst_parser",
    "from_code",
    "notebook",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]

myst_heading_anchors = 3  # links such as tables.md#fields, as GitHub has them
autosummary_generate = True
autodoc_typehints = "none"  # signatures of numpydoc sections say it in words
autodoc_member_order = "groupwise"
numpydoc_show_class_members = False  # the template of a class lists its methods

smartquotes = False  # "--db" is an option

html_theme = "pydata_sphinx_theme"
html_title = f"daskbroker {release}"
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {
    "navigation_with_keys": False,
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": ["sphinx-version"],
}
