"""The site, as `nox -s docs` builds it. Its source is the whole checkout, so that links stay as they are."""

from __future__ import annotations

from sphinx.application import Sphinx

from resnet_bench import __version__

project = "resnet_bench"
author = copyright = "The resnet_bench maintainers"
version = release = __version__

include_patterns = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/**.md", "reports/**.md"]
root_doc = "docs/index"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]

myst_heading_anchors = 4  # links to headings as on GitHub
default_role = "py:obj"  # docstrings have names in single backticks; those of objects on the site become links
autodoc_default_options = {"members": True, "member-order": "bysource"}
napoleon_use_ivar = True

html_theme = "furo"
html_title = project
html_extra_path = ["_extra"]  # index.html, which leads to the front page
html_static_path = ["_static"]
html_css_files = ["site.css"]


ALL_REPORTS = """
```{toctree}
:hidden:
:glob:
*
```
"""


def place_reports(app: Sphinx, name: str, source: list[str]) -> None:
    """Give the reports, which are saved as they were printed, what pages of a site have: a heading and a place."""
    if name == "reports/README":
        source[0] += ALL_REPORTS
    elif name.startswith("reports/") and not source[0].startswith("# "):
        source[0] = f"# {name.removeprefix('reports/')}\n\n{source[0]}"


def setup(app: Sphinx) -> None:
    app.connect("source-read", place_reports)
