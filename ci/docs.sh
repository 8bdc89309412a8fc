#!/usr/bin/env bash
# Build the site of docs/ into docs/_build/html, in a virtual environment of its own.
set -euo pipefail
cd "$(dirname "$0")/.."

environment=$(mktemp -d)
trap 'rm -rf "$environment"' EXIT
"${PYTHON:-python3}" -m venv "$environment"
# shellcheck disable=SC1091
source "$environment/bin/activate"
pip install --quiet --disable-pip-version-check ".[docs]"
make -C docs html
