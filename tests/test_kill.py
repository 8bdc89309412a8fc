"""Writers killed while they journal and seal; see daskbroker/testing/kill.py."""

from __future__ import annotations

from daskbroker.testing.processes import Program

KILL = "import sys; from daskbroker.testing.kill import main; main(sys.argv[1:])"


def test_killed_writers_lose_nothing():
    program = Program(KILL, "--times", 8)
    said, errors = program.communicate()
    assert program.returncode == 0, said + errors
    assert "8 kills, nothing lost or doubled" in said
