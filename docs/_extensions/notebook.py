"""Notebooks as pages: their Markdown, their code, and the outputs that are kept in them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from myst_parser.parsers.sphinx_ import MystParser
from sphinx.application import Sphinx


class NotebookParser(MystParser):
    """Makes Markdown of a notebook, and leaves the rest to MyST. Nothing is run."""

    supported = ("ipynb",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        cells = json.loads(inputstring)["cells"]
        super().parse("\n\n".join(part for cell in cells for part in _parts(cell)), document)


def _parts(cell: dict[str, Any]) -> Iterator[str]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield source
        return
    yield _block("python", source)
    for output in cell["outputs"]:
        yield _output(output)


def _output(output: dict[str, Any]) -> str:
    if "text" in output:
        return _block("text", "".join(output["text"]))
    data = {kind: "".join(value) for kind, value in output["data"].items()}
    if "image/png" in data:
        picture = f'<img src="data:image/png;base64,{data["image/png"].strip()}" alt="The plot">'
        return _block("{raw} html", f'<div class="cell-output">{picture}</div>')
    if "text/html" in data:
        return _block("{raw} html", f'<div class="cell-output">{data["text/html"]}</div>')
    return _block("text", data["text/plain"])


def _block(kind: str, content: str) -> str:
    fence = "`" * 8  # more than any content has
    return f"{fence}{kind}\n{content.rstrip()}\n{fence}"


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.add_source_suffix(".ipynb", "ipynb")
    app.add_source_parser(NotebookParser)
    return {"parallel_read_safe": True}
