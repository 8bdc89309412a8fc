"""The site of docs/: it builds without a warning and without network, and every name has a page."""

from __future__ import annotations

import html
import inspect
import json
import os
import re
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

import daskbroker
from ci.browser import dom
from daskbroker.assets.handlers.registry import OWN
from daskbroker.core import errors
from daskbroker.core.settings import SETTINGS
from daskbroker.event_source import EventSource
from daskbroker.header_source import HeaderSource

DOCS = Path(__file__).parents[1] / "docs"
NOUNS = {f"daskbroker.{name}": getattr(daskbroker, name) for name in daskbroker.__all__} | {
    f"{noun.__module__}.{noun.__name__}": noun for noun in (HeaderSource, EventSource)
}
NOUNS = {name: noun for name, noun in NOUNS.items() if inspect.isclass(noun)}
# Nothing answers at port 9, so what asks for something of the network fails at once.
OFFLINE = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", folder / "trees"]
    done = subprocess.run(
        [*command, DOCS, folder / "html"],
        capture_output=True, text=True, check=False, env=os.environ | OFFLINE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return folder / "html"


@pytest.fixture(scope="module")
def inventory(site):
    """The page and anchor of each documented name, as other sites' links find them."""
    packed = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    lines = zlib.decompress(packed).decode().splitlines()
    found = [re.fullmatch(r"(\S+) py:(\w+) -?\d+ (\S+) .*", line) for line in lines]
    return {line[1]: line[3].replace("$", line[1]) for line in found if line}


def test_every_public_name_has_a_page(inventory):
    pages = {name: inventory.get(f"daskbroker.{name}", "").split("#")[0]
             for name in daskbroker.__all__}  # fmt: skip
    assert pages == {
        name: f"reference/generated/daskbroker.{name}.html" for name in daskbroker.__all__
    }


@pytest.mark.parametrize("name", NOUNS)
def test_every_method_is_on_its_page(name, site, inventory):
    page = site / inventory[name].split("#")[0]
    text = page.read_text(encoding="utf8")
    missing = [method for method in _methods(NOUNS[name]) if f'id="{name}.{method}"' not in text]
    assert not missing


def _methods(noun):
    """The public methods and properties that are daskbroker's own."""
    for owner in noun.__mro__:
        if owner.__module__.startswith("daskbroker"):
            yield from (
                name
                for name, value in vars(owner).items()
                if not name.startswith("_") and (callable(value) or isinstance(value, property))
            )


def test_every_setting_and_error_is_told(site):
    settings = (site / "reference/settings.html").read_text(encoding="utf8")
    assert [name for name in SETTINGS if f"daskbroker.{name}<" not in settings] == []
    told = (site / "reference/errors.html").read_text(encoding="utf8")
    names = [
        name for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, errors.DaskbrokerError)
    ]  # fmt: skip
    assert len(names) > 20
    assert [name for name in names if f">{name}<" not in told] == []


def test_every_handler_is_told(site):
    told = (site / "reference/handlers.html").read_text(encoding="utf8")
    assert [spec for spec in OWN if f">{spec}<" not in told] == []


def test_every_command_is_told(site):
    import typer.main

    from daskbroker.cli import app

    told = (site / "reference/command-line.html").read_text(encoding="utf8")
    for name, command in typer.main.get_command(app).commands.items():
        assert f'id="command-{name}"' in told
        options = [option for param in command.params for option in param.opts if "--" in option]
        assert [option for option in options if option not in told] == []


WIDTHS = (1400, 420)
FRAMES = """<!doctype html><meta charset="utf-8"><script>
const found = {}; addEventListener("message", event => {
found[event.data[0]] = event.data.slice(1);
document.documentElement.dataset.found = JSON.stringify(found);
});</script>"""
MEASURE = """<script>addEventListener("load", () => {
parent.postMessage([name, innerWidth, document.documentElement.scrollWidth], "*");
});</script>"""
LOOKED_AT = [
    "index", "tutorial", "notebooks", "writing-a-handler", "explanation/what-moves",
    "reference/handlers", "tables", "from-databroker", "from-tiled", "reference/settings",
    "reference/errors", "reference/command-line", "reference/generated/daskbroker.Header",
]  # fmt: skip


def test_pages_fit_into_a_browser(site):
    """Tables and code that are wider scroll by themselves, the page does not.

    Each page is shown in frames of both widths, by one browser: starting it takes longest.
    """
    frames = [FRAMES]
    for name in LOOKED_AT:
        page = site / f"{name}.html"
        text = page.read_text(encoding="utf8")
        copy = page.with_name(f"measured-{page.name}")
        copy.write_text(text.replace("</head>", f"{MEASURE}</head>"), encoding="utf8")
        frames += [
            f'<iframe name="{name} {width}" src="{copy.as_uri()}" width="{width}" height="900" '
            'style="border: 0"></iframe>'
            for width in WIDTHS
        ]
    (site / "frames.html").write_text("".join(frames), encoding="utf8")
    shown = re.search(r'data-found="([^"]+)"', dom((site / "frames.html").as_uri()))
    measured = json.loads(html.unescape(shown[1]))
    expected = {f"{name} {width}": [width, width] for name in LOOKED_AT for width in WIDTHS}
    assert measured == expected


def test_search_finds_pages(site):
    text = dom((site / "search.html").as_uri() + "?q=journal")
    found = re.findall(r'<li[^>]*><a href="([^"#?]+)', text[text.index('id="search-results"') :])
    assert {"glossary.html", "durability.html"} <= set(found)


def test_every_page_is_reached_from_the_index(site):
    """Pages without a way to them are warnings of Sphinx, so it is enough that all are built."""
    pages = {path.relative_to(DOCS).with_suffix("") for path in DOCS.rglob("*.md")}
    assert {page for page in pages if not (site / page).with_suffix(".html").exists()} == set()


def test_links_to_other_pages_lead_somewhere():
    """On GitHub, where Sphinx does not look: of all pages, README and CONTRIBUTING."""
    root = DOCS.parent
    for page in [*DOCS.rglob("*.md"), *root.glob("*.md")]:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)#\s]+)", text):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page}: {target}"


def test_the_index_of_decisions_lists_each_by_its_title():
    folder = DOCS / "decisions"
    index = re.findall(r"^- \[(.+)\]\((.+)\)$", (folder / "README.md").read_text("utf8"), re.M)
    records = sorted(folder.glob("0*.md"))
    titles = [path.read_text("utf8").partition("\n")[0].removeprefix("# ") for path in records]
    assert index == [(title, path.name) for title, path in zip(titles, records, strict=True)]
