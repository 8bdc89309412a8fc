#!/usr/bin/env bash
# Check the checkout as a whole, in a virtual environment of its own: format, lint, types,
# layers, then the test command of the README, whose tests build the site of docs/ too. What takes
# longer is in ci/long.sh.
set -euo pipefail
cd "$(dirname "$0")/.."

environment=$(mktemp -d)
trap 'rm -rf "$environment"' EXIT
"${PYTHON:-python3}" -m venv "$environment"
# shellcheck disable=SC1091
source "$environment/bin/activate"
pip install --quiet --disable-pip-version-check ".[test]"
# What notebooks show is read by a browser.
if ! command -v chromium > /dev/null; then
    apt-get -qq update
    apt-get -qq install --no-install-recommends chromium fonts-dejavu-core > /dev/null
fi

ruff format --check .
ruff check .
mypy
lint-imports
pip install ".[test]" --quiet --disable-pip-version-check && pytest -n 3
