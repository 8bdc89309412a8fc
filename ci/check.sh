#!/usr/bin/env bash
# Check the checkout as a whole, in a virtual environment of its own: format, lint, types,
# layers, then the test command of the README, whose tests build the site of docs/ too, and beside it
# installed clients of databroker, in an environment of theirs. What takes longer is in ci/long.sh.
set -euo pipefail
cd "$(dirname "$0")/.."

environment=$(mktemp -d)
beside=() # what runs in the background: processes, and groups of them as negative numbers
finish() {
    ((${#beside[@]} == 0)) || kill -- "${beside[@]}" 2> /dev/null || true
    wait
    rm -rf "$environment"
}
trap finish EXIT
"${PYTHON:-python3}" -m venv "$environment"
# shellcheck disable=SC1091
source "$environment/bin/activate"
# Two thirds of what is installed is never imported. The rest is compiled by who imports it first.
unset PYTHONDONTWRITEBYTECODE
# What notebooks show is read by a browser.
if ! command -v chromium > /dev/null; then
    (
        apt-get -qq update
        apt-get -qq install --no-install-recommends chromium fonts-dejavu-core > /dev/null
    ) &
    beside=($!)
fi
pip install --quiet --disable-pip-version-check --no-compile ".[test]"
((${#beside[@]} == 0)) || wait "${beside[0]}"

# Each worker of pytest imports all tests, at the same moment, and would compile them and what they
# import. Collecting them beforehand, beside mypy, compiles it once.
pytest --collect-only --quiet > /dev/null &
collecting=$!
beside=("$collecting")
ruff format --check .
ruff check .
mypy
lint-imports
wait "$collecting" || true # the workers will say why
beside=()

# The tests wait often, for servers that start and fail. What the clients say comes after them.
mkdir "$environment/clients"
TMPDIR=$environment/clients setsid python ci/clients > "$environment/clients.txt" 2>&1 &
clients=$!
beside=("-$clients")
status=0
pytest -n 3 || status=$?
if wait "$clients"; then
    echo "Installed clients of databroker: $(tail -n 1 "$environment/clients.txt")"
else
    status=1
    cat "$environment/clients.txt"
    echo "ci/check.sh: installed clients of databroker: see above; python ci/clients runs them alone"
fi
beside=()
exit "$status"
