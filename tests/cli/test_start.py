"""How the command line starts: quickly, with ``--db`` anywhere, completed by shells."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys

import pytest

import daskbroker
from daskbroker.testing import make_run
from daskbroker.testing.base import insert_all

HEAVY = ("pandas", "dask.dataframe", "distributed", "xarray", "matplotlib", "pyarrow", "h5py")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    with daskbroker.connect(folder) as db:
        insert_all(db, make_run(2, uid="run-0-abcdef"))
    return folder


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (["--help"], {}),
        (["ls", "--help"], {}),
        (["completion", "bash"], {}),
        ([], {"_DASKBROKER_COMPLETE": "complete_bash", "COMP_WORDS": "daskbroker l"}),
    ],
    ids=["help", "help of a command", "completion", "completing"],
)
def test_help_and_completion_import_nothing_heavy(arguments, environment):
    code = (
        "import atexit, sys\n"
        f"heavy = {HEAVY!r}\n"
        "def say():\n"
        "    print('imported:', [m for m in heavy if m in sys.modules], file=sys.stderr)\n"
        "atexit.register(say)\n"
        "from daskbroker.cli import main\n"
        f"sys.argv = ['daskbroker', *{arguments!r}]\n"
        "main()\n"
    )
    environ = {**os.environ, "COMP_CWORD": "1", **environment}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environ, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert done.stderr == "imported: []\n"


def test_public_names_are_there_when_they_are_used():
    code = (
        "import daskbroker, sys\n"
        "assert 'pandas' not in sys.modules\n"
        "import daskbroker.connect\n"
        "assert callable(daskbroker.connect)\n"
        "assert all(getattr(daskbroker, name) is not None for name in daskbroker.__all__)\n"
        "assert set(daskbroker.__all__) <= set(dir(daskbroker))\n"
        "from daskbroker import *\n"
        "assert connect is daskbroker.connect and callable(connect)\n"
        "assert not hasattr(daskbroker, 'absent') and daskbroker.views.__name__\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_lists_and_inserts_import_neither_tables_nor_xarray(store, tmp_path):
    code = (
        "import sys\n"
        "import daskbroker\n"
        "from daskbroker.testing import make_run\n"
        "with daskbroker.connect(sys.argv[1], mode='r') as db:\n"
        "    print(db[-1].uid, len(db()), db)\n"
        "assert 'pandas' not in sys.modules  # pyarrow imports it once an array is made\n"
        "with daskbroker.connect(sys.argv[2]) as new:\n"
        "    for name, doc in make_run(2):\n"
        "        new.insert(name, doc)\n"
        "assert not {'dask.dataframe', 'distributed', 'xarray', 'h5py'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-c", code, str(store), str(tmp_path / "new")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_header_unpickles_in_a_process_that_has_opened_nothing(store):
    import pickle

    with daskbroker.connect(store, mode="r") as db:
        packed = pickle.dumps(db[-1])
    code = f"import pickle\nprint(len(pickle.loads({packed!r}).table()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "2\n", done.stderr


def test_db_before_or_after_the_command(run, store, tmp_path):
    for command in (["--db", store, "ls"], ["ls", "--db", store]):
        assert "run-0-ab" in run(*command).stdout
        assert "run-0-ab" in run(*command, DASKBROKER_URI=str(tmp_path / "other")).stdout
    assert "run-0-ab" in run("ls", DASKBROKER_URI=str(store)).stdout
    assert "run-0-ab" in run("--db", tmp_path / "other", "ls", "--db", store).stdout
    assert ": 1 run\n" in run("--db", store, "info").stdout.replace(", 1 of them open", "")
    assert "run-0-abcdef" in run("--db", store, "show", "-1").stdout.splitlines()[0]


def test_db_before_a_command_that_takes_none_is_an_error(run, store, tmp_path):
    done = run("--db", store, "copy", store, tmp_path / "target")
    assert done.returncode == 2
    assert "copy takes no --db" in done.stderr
    done = run("copy", store, tmp_path / "target", DASKBROKER_URI=str(store))
    assert done.returncode == 0, done.stderr


def test_an_unknown_command_is_told_with_those_there_are(run):
    done = run("lst")
    assert done.returncode == 2
    assert "No such command 'lst'" in done.stderr
    assert all(name in done.stderr for name in ("ls", "show", "tail", "reprocess"))


def test_what_is_wrong_is_said_without_numbers_and_names_of_packages(run, store, tmp_path):
    (tmp_path / "notes").write_text("mine")
    file = str(tmp_path / "notes")
    in_place = f"there is a file in place of a folder, at or above '{file}"
    for command, told in (
        (("ls", "--db", store, "--format", "jsn"), "'--format': 'jsn' is not one of"),
        (("ls", "--db", "mongodb//h/db"), "mongodb//… is neither a path nor a URI"),
        (("copy", store, file), in_place),
        (("copy", store, f"{file}/below"), in_place),
        (("export", file, "--db", store), in_place),
    ):
        done = run(*command)
        assert done.returncode != 0
        assert told in done.stderr
        assert "Errno" not in done.stderr
    assert (tmp_path / "notes").read_text() == "mine"


def test_output_that_cannot_be_written_is_said(store):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "daskbroker", "ls", "--db", str(store)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    told = "daskbroker: error: the output cannot be written: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, told)


def test_an_unknown_place_is_told_with_those_there_are(run, tmp_path):
    (tmp_path / "beamline.yml").write_text("uri: ./store\n")
    done = run("ls", "--db", "beamlin", cwd=tmp_path, DASKBROKER_PATH=str(tmp_path))
    assert done.returncode == 1
    assert "beamline" in done.stderr


def completed(words, **environment):
    """Return the completions that bash gets for a command line."""
    environ = {
        **os.environ,
        "_DASKBROKER_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(["daskbroker", *words]),
        "COMP_CWORD": str(len(words)),
        **environment,
    }
    command = [sys.executable, "-c", "from daskbroker.cli import main; main()"]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_commands_options_and_names_are_completed(tmp_path):
    (tmp_path / "beamline.yml").write_text("uri: ./store\n")
    assert completed(["sea"]) == ["seal"]
    assert "--fields" in completed(["ls", "--f"])
    assert completed(["ls", "--format", "c"]) == ["csv"]
    assert completed(["ls", "--db", "bea"], DASKBROKER_PATH=str(tmp_path)) == ["beamline"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_for_shells(run, shell):
    done = run("completion", shell)
    assert done.returncode == 0
    assert f"_DASKBROKER_COMPLETE=complete_{shell}" in done.stdout
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=done.stdout, text=True, check=True)
    unknown = run("completion", "tcsh").stderr
    assert all(name in unknown for name in ("bash", "zsh", "fish"))


def test_bash_completes(run, tmp_path):
    """The script in a real bash, with the command on its path."""
    bash = shutil.which("bash")
    assert bash
    command = tmp_path / "daskbroker"
    command.write_text(
        f"#!{sys.executable}\nimport sys\nsys.argv[0] = 'daskbroker'\n"
        "from daskbroker.cli import main\nmain()\n"
    )
    command.chmod(0o755)
    script = run("completion", "bash").stdout
    asked = "COMP_WORDS=(daskbroker rep)\nCOMP_CWORD=1\n_daskbroker_completion daskbroker\n"
    done = subprocess.run(
        [bash, "-c", f"{script}\n{asked}echo ${{COMPREPLY[@]}}"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )
    assert done.stdout.split() == ["reprocess"], done.stderr


@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_a_closed_stream_is_no_error(store, closed):
    code = "from daskbroker.cli import main; main()"
    command = shlex.join([sys.executable, "-c", code, "check", str(store)])
    done = subprocess.run(
        f"{command} {closed}", shell=True, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
