"""Execute notebooks as a reader would, and return the outputs of their cells."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

__all__ = ["executed", "shown"]

HOME = "/home/me"
"""Replacement, in outputs, for the folder in which a notebook ran."""
COLUMNS = "120"
"""Width of the terminal: wide enough for lists of runs with any durations."""
VARIES = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.\d]*([+-]\d\d:\d\d)?"  # times
    r"|\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|\b[0-9a-f]{8}\b"  # uids
    r"|\b[\d.]+ (ms|s|min)\b"  # durations
    r"|\b\d+\.\d+\.\d+\w*\b"  # versions
    r"|0x[0-9a-f]+|\.\.\.+"
)


def executed(file: Path, folder: Path, seconds: int = 120) -> Any:
    """Execute a notebook, and return it with the outputs of its cells.

    Parameters
    ----------
    file
        Path of the notebook; the file is not changed.
    folder
        Working folder of its kernel, which is a separate process.
    seconds
        Maximum seconds for one cell.

    Raises
    ------
    nbclient.exceptions.CellExecutionError
        If a cell fails.
    """
    import nbformat
    from nbclient import NotebookClient

    with file.open(encoding="utf8") as opened:
        notebook = nbformat.read(opened, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=seconds, resources=resources)
    client.execute(env=os.environ | {"COLUMNS": COLUMNS})
    for cell in _code_cells(notebook):
        cell.metadata.pop("execution", None)  # times of its execution
        cell.outputs = _joined(cell.outputs)
        for output in cell.outputs:
            _without_folder(output, os.path.realpath(folder))
    return notebook


def shown(notebook: Any) -> list[tuple[str, list[str]]]:
    """Return the code of each cell and its outputs, without text that differs between executions.

    Pictures, HTML and reprs of xarray objects are represented by their MIME type.
    """
    return [
        (cell.source, [text for output in cell.outputs for text in _texts(output)])
        for cell in _code_cells(notebook)
    ]


def _code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _joined(outputs: list[Any]) -> list[Any]:
    """Join consecutive outputs of one stream, which a kernel may send in any number of pieces."""
    joined: list[Any] = []
    for output in outputs:
        if joined and output.output_type == "stream" and joined[-1].get("name") == output.name:
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def _without_folder(output: Any, folder: str) -> None:
    if "text" in output:
        output.text = output.text.replace(folder, HOME)
    for kind, data in output.get("data", {}).items():
        if kind.startswith("text/"):
            output.data[kind] = data.replace(folder, HOME)


def _texts(output: Any) -> list[str]:
    if output.output_type == "stream":
        return [f"{output.name}: {_constant(output.text)}"]
    return [
        _constant(text) if kind == "text/plain" and not text.startswith("<xarray") else kind
        for kind, text in sorted(output.data.items())
    ]


def _constant(text: str) -> str:
    return " ".join(VARIES.sub(" ", text).split())
