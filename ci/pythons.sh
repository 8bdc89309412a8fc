#!/usr/bin/env bash
# Functions that find the Pythons of this machine which daskbroker supports; sourced by scripts.

LOWEST=11 # of Python 3, as requires-python has it

python_of() { # a Python 3.N that runs, of the PATH or of pyenv; nothing if there is none
    local found pyenv=${PYENV_ROOT:-$HOME/.pyenv}
    for found in "python3.$1" "$pyenv/versions/3.$1".*/bin/python; do
        if "$found" -c "import sys, venv; assert sys.version_info[:2] == (3, $1)" 2> /dev/null; then
            echo "$found"
            return
        fi
    done
}

supported_pythons() { # one of each version, a line each, the lowest first
    local minor
    for ((minor = LOWEST; minor < LOWEST + 20; minor++)); do
        python_of "$minor"
    done
}
