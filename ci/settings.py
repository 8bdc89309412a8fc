"""Write daskbroker/daskbroker.yaml from daskbroker/core/settings.py.

python ci/settings.py
"""

from __future__ import annotations

from pathlib import Path

from daskbroker.core.settings import settings_yaml

if __name__ == "__main__":
    path = Path(__file__).parents[1] / "daskbroker" / "daskbroker.yaml"
    path.write_text(settings_yaml(), encoding="utf8")
