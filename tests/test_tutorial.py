"""docs/tutorial.ipynb runs without changes, and its outputs are those on the site."""

from __future__ import annotations

from pathlib import Path

import nbformat

from ci.notebooks import executed, shown

TUTORIAL = Path(__file__).parents[1] / "docs/tutorial.ipynb"


def test_cells_show_what_the_page_shows(tmp_path):
    with TUTORIAL.open(encoding="utf8") as file:
        kept = shown(nbformat.read(file, as_version=4))
    assert len(kept) == 40
    now = shown(executed(TUTORIAL, tmp_path))
    differ = [(code, was, is_) for (code, was), (_, is_) in zip(kept, now) if was != is_]
    assert not differ
    assert [path.name for path in tmp_path.iterdir()] == ["tutorial"]  # as its last words promise
