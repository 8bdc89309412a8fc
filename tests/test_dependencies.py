"""What is needed, and what for: the page of dependencies, and what an import loads."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


def test_the_page_says_what_each_dependency_is_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    wanted = [text for group in groups for text in group]
    page = (ROOT / "docs/reference/dependencies.md").read_text(encoding="utf8")
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    told = {name for line in rows for name in re.findall(r"`([\w-]+)`", line)}
    assert {Requirement(text).name for text in wanted} - told == set()
    always = set(re.findall(r"^\| `([\w-]+)` \|", page.partition("## Extras")[0], re.MULTILINE))
    assert always == {Requirement(text).name for text in project["dependencies"]}


def test_importing_takes_at_most_what_dask_and_xarray_take():
    """Of other packages; used as a whole it adds the readers of files, and no database driver."""
    theirs = loaded("import dask.dataframe, xarray")
    assert loaded("import daskbroker") - theirs == {"daskbroker", "msgpack"}
    used = "import daskbroker\nwith daskbroker.temp() as db: len(db)"
    assert loaded(used) & {"pymongo", "distributed", "matplotlib", "tifffile", "h5netcdf"} == set()


def loaded(code: str) -> set[str]:
    """Installed packages that are imported when some code has run in a new process."""
    say = "import json, sys; print(json.dumps([name.partition('.')[0] for name in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{say}"], check=True, capture_output=True, text=True
    )
    return set(json.loads(done.stdout)) - sys.stdlib_module_names
