#!/usr/bin/env bash
# Build sdist and wheel of what is committed, and try each in clean environments.
#
#     bash ci/release.sh                          # the lowest and the highest Python that is here
#     bash ci/release.sh --python python3.12      # this one; may be given again
#     bash ci/release.sh --into dist              # keep the files that passed
#
# Every package comes as a wheel, and no compiler can be called: what needs one fails here. In each
# environment ci/smoke.py writes and reads runs with nothing of the checkout on its path.
set -euo pipefail
cd "$(dirname "$0")/.."

. ci/pythons.sh

pythons=()
into=
while (($#)); do
    case $1 in
    --python) pythons+=("${2:?--python needs a command}") && shift ;;
    --into) into=${2:?--into needs a folder} && shift ;;
    *) echo "ci/release.sh: no option $1; see the head of the file" >&2 && exit 2 ;;
    esac
    shift
done

if ((${#pythons[@]} == 0)); then
    mapfile -t pythons < <(supported_pythons)
    ((${#pythons[@]})) || { echo "ci/release.sh: no Python 3.$LOWEST or later" >&2 && exit 1; }
    ((${#pythons[@]} == 1)) || pythons=("${pythons[0]}" "${pythons[-1]}")
fi

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

environment() { # a fresh one for a Python; prints its python
    local folder
    folder=$(mktemp -d -p "$scratch")
    "$1" -m venv "$folder" && echo "$folder/bin/python"
}

install() { # into an environment, without a compiler and, but for daskbroker, without an sdist
    local python=$1
    shift
    CC=/bin/false CXX=/bin/false "$python" -m pip install --quiet --disable-pip-version-check \
        --only-binary :all: "$@"
}

mkdir "$scratch/source" "$scratch/elsewhere"
git archive HEAD | tar -x -C "$scratch/source"
builder=$(environment "${pythons[0]}")
install "$builder" build
"$builder" -m build --outdir "$scratch/dist" "$scratch/source" > "$scratch/log" 2>&1 ||
    { cat "$scratch/log" && exit 1; }

smoke=$PWD/ci/smoke.py
for python in "${pythons[@]}"; do
    for file in "$scratch"/dist/*; do
        began=$SECONDS
        fresh=$(environment "$python")
        install "$fresh" "$file"
        "$fresh" -m pip check
        (cd "$scratch/elsewhere" && "$fresh" -I "$smoke")
        printf '%-10s %-40s %5d MiB %5d s  passed\n' "$("$fresh" -c \
            'import platform; print(platform.python_version())')" "$(basename "$file")" \
            "$(du -sm "${fresh%/bin/python}" | cut -f1)" $((SECONDS - began))
        rm -rf "${fresh%/bin/python}"
    done
done
[[ -z "$into" ]] || { mkdir -p "$into" && cp "$scratch"/dist/* "$into"; }
