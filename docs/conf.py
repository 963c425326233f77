"""Settings of Sphinx, which `make docs` builds the pages of this folder with.

The README is the first page. Links lead where they lead on a code host; those to files that are no
pages become their text here.
"""

import re
from pathlib import Path
from typing import Any

project = "vqa-cache"
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 3  # as code hosts make them
suppress_warnings = ["misc.highlighting_failure"]  # JSON lines are no JSON
html_theme = "alabaster"
html_theme_options = {
    "description": "Frozen encoders run once, answer heads trained in a minute.",
    "fixed_sidebar": True,
    "page_width": "72rem",
}
html_show_copyright = False
html_show_sphinx = False

README = Path(__file__).parent.parent / "README.md"
PAGE_OF = {"../README.md": "index.md", "../vqa_cache/FORMAT.md": "format.md"}


def read(app: Any, name: str, source: list[str]) -> None:
    """Change a page's text before Sphinx parses it."""
    text = source[0]
    if name == "index":
        text = re.sub(r"\]\((?!docs/|#|\w+:)", "](../", README.read_text()) + text
        text = text.replace("](docs/", "](")
    for target, page in PAGE_OF.items():
        text = text.replace(f"]({target}", f"]({page}")
    source[0] = re.sub(r"\[([^]]*)\]\(\.\./[^)]*\)", r"\1", text)


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", read)
