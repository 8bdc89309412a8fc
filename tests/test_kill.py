"""Writers killed while they journal and seal; see daskbroker/testing/kill.py."""

from __future__ import annotations

import subprocess
import sys


def test_killed_writers_lose_nothing():
    command = [sys.executable, "-m", "daskbroker.testing.kill", "--times", "8"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "8 kills, nothing lost or doubled" in done.stdout
