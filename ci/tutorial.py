"""Run docs/tutorial.ipynb, and save it with its outputs, which the site shows.

    python ci/tutorial.py

Edit the notebook in Jupyter or as text; look at the outputs before you commit them.
tests/test_tutorial.py runs the notebook again and compares the outputs.
"""

from __future__ import annotations

import base64
import io
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from PIL import Image

sys.path.append(str(Path(__file__).resolve().parents[1]))

from ci.notebooks import executed

TUTORIAL = Path(__file__).parents[1] / "docs/tutorial.ipynb"


def smaller(picture: str) -> str:
    """Return a PNG with a palette, as plots have few colours."""
    made = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
        image.convert("RGB").quantize(64).save(made, "png", optimize=True)
    return base64.b64encode(made.getvalue()).decode()


def main() -> None:
    """Run the notebook, and write it."""
    with tempfile.TemporaryDirectory() as folder:
        notebook = executed(TUTORIAL, Path(folder))
    outputs: list[Any] = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    for output in outputs:
        if "image/png" in output.get("data", {}):
            output.data["image/png"] = smaller(output.data["image/png"])
    with TUTORIAL.open("w", encoding="utf8") as file:
        nbformat.write(notebook, file)
    print(f"{TUTORIAL.name}: {TUTORIAL.stat().st_size // 1024} KiB, {len(outputs)} outputs")


if __name__ == "__main__":
    main()
