"""The site's configuration; ``generated.py`` writes the pages that come from the code."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import generated  # noqa: E402  (the paths above come first)

project = "espnet_prune"
author = copyright = "The espnet_prune developers"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
# the last two are parts of pages
exclude_patterns = ["_build", "generated/models.md", "generated/methods.md"]
html_theme = "furo"
html_title = "espnet_prune"
html_static_path = ["_static"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

generated.write_pages(HERE)
