#!/usr/bin/env bash
# Check the checkout as a whole, in a virtual environment of its own: format, lint, types,
# layers, the site of docs/, then the test command of the README. What takes longer is in ci/long.sh.
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
make -C docs html
pip install ".[test]" --quiet --disable-pip-version-check && pytest -n 3
