"""Show HTML of notebooks and of the site in a headless browser: Debian's Chromium."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

__all__ = ["dom", "picture", "seen", "selected"]

PAGE = """<!doctype html><meta charset="utf-8"><title>page</title>
<style>body{font-family:"DejaVu Sans",sans-serif;font-size:13px;margin:12px}</style>
<div id="it">%s</div>"""
ASK = """<script>
const it = document.getElementById("it");
%s
document.body.replaceChildren();
document.body.append(Object.assign(document.createElement("pre"), {id: "found"}));
document.getElementById("found").textContent = found;
</script>"""
OPEN = 'it.querySelectorAll("details").forEach(one => one.open = true);'


def seen(shown: str, folder: Path, *, opened: bool = False) -> list[str]:
    """Return the lines of text that a browser shows for some HTML.

    Parameters
    ----------
    shown
        HTML from ``_repr_html_``.
    folder
        Folder for the temporary page.
    opened
        Whether to open all folded elements.
    """
    text = _ask(shown, folder, f"{OPEN if opened else ''} const found = it.innerText;")
    return [re.sub(r"[ \t\xa0]+", " ", line).strip() for line in text.split("\n") if line.strip()]


def selected(shown: str, folder: Path, selector: str) -> str:
    """Return the text that is copied when a user selects an element, given by CSS selector."""
    return _ask(
        shown,
        folder,
        f'getSelection().selectAllChildren(it.querySelector("{selector}"));'
        "const found = getSelection().toString();",
    )


def picture(shown: str, file: Path, size: tuple[int, int] = (900, 420)) -> Path:
    """Write a picture of some HTML to a PNG file, and return its path."""
    page = file.with_suffix(".html")
    page.write_text(PAGE % shown, encoding="utf8")
    _chromium(page.resolve().as_uri(), {"screenshot": file, "window-size": f"{size[0]},{size[1]}"})
    page.unlink()
    return file


def dom(url: str, width: int = 1400) -> str:
    """Return the HTML of a page after its scripts have run, in a window ``width`` pixels wide."""
    waiting = {"virtual-time-budget": 10_000}  # milliseconds of the page's timers
    return _chromium(url, {"dump-dom": None, "window-size": f"{width},900", **waiting})


def _ask(shown: str, folder: Path, script: str) -> str:
    page = folder / "page.html"
    page.write_text(PAGE % shown + ASK % script, encoding="utf8")
    text = _chromium(page.resolve().as_uri(), {"dump-dom": None})
    found = re.search(r'<pre id="found">(.*)</pre>', text, re.DOTALL)
    assert found, text
    return html.unescape(found[1])


def _chromium(url: str, options: Mapping[str, object]) -> str:
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    assert program, "these tests need a browser: apt-get install chromium"
    given = [
        f"--{name}" + ("" if value is None else f"={value}") for name, value in options.items()
    ]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [
            program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            f"--user-data-dir={profile}", *given, url,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, timeout=240, check=True)
    return done.stdout.decode()
