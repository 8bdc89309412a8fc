#!/usr/bin/env bash
# Check the checkout as a whole, in a virtual environment of its own: format, lint, types,
# layers, then the test command of the README, whose tests build the site of docs/ too. What takes
# longer is in ci/long.sh.
set -euo pipefail
cd "$(dirname "$0")/.."

environment=$(mktemp -d)
collecting=
trap '[[ -z "$collecting" ]] || kill "$collecting" 2> /dev/null || true; rm -rf "$environment"' EXIT
"${PYTHON:-python3}" -m venv "$environment"
# shellcheck disable=SC1091
source "$environment/bin/activate"
# Two thirds of what is installed is never imported. The rest is compiled by who imports it first.
unset PYTHONDONTWRITEBYTECODE
pip install --quiet --disable-pip-version-check --no-compile ".[test]"
# What notebooks show is read by a browser.
if ! command -v chromium > /dev/null; then
    apt-get -qq update
    apt-get -qq install --no-install-recommends chromium fonts-dejavu-core > /dev/null
fi

# Each worker of pytest imports all tests, at the same moment, and would compile them and what they
# import. Collecting them beforehand, beside mypy, compiles it once.
pytest --collect-only --quiet > /dev/null &
collecting=$!
ruff format --check .
ruff check .
mypy
lint-imports
wait "$collecting" || true # the workers will say why
collecting=
pip install ".[test]" --quiet --disable-pip-version-check && pytest -n 3
