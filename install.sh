#!/bin/sh
# Creates .venv next to this file and installs this project in it with requirements.txt, unless that
# is done already. The Python API and the entry points then work from any folder.
# Usage: ./install.sh [pip arguments]
#
# The interpreter is $PYTHON, otherwise the newest Python from 3.10 to 3.13 on the PATH. If
# nvidia-smi runs, TensorFlow is installed with its CUDA libraries.
set -eu
cd "$(dirname "$0")"

cuda=
if nvidia-smi >/dev/null 2>&1; then
    cuda=$(sed -n 's/^tensorflow\([<>=][^ ]*\).*/tensorflow[and-cuda]\1/p' requirements-library.txt)
fi
stamp=.venv/installed-$(cat pyproject.toml requirements*.txt tests/requirements.txt | cksum |
    tr ' ' -)
stamp=$stamp-$(echo "$* $cuda" | cksum | tr ' ' -)
if [ -e "$stamp" ] && .venv/bin/python -c '' 2>/dev/null; then
    exit 0
fi

if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    supported='import ensurepip, sys, venv; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))'
    for python in ${PYTHON:-python3.13 python3.12 python3.11 python3.10 python3 python} none; do
        # Run the interpreter: a name on the PATH may be a stub without Python.
        if [ "$python" != none ] && "$python" -c "$supported" 2>/dev/null; then
            break
        fi
    done
    if [ "$python" = none ]; then
        echo "error: no Python 3.10 to 3.13 with its venv module${PYTHON:+ at $PYTHON}; install" \
            "one, or set its path: PYTHON=/path/to/python3.12 $0" >&2
        exit 1
    fi
    echo "creating .venv with $("$python" --version)"
    rm -rf .venv
    "$python" -m venv .venv
fi
echo "installing the project with requirements.txt ${*}${cuda:+ and $cuda}"
quiet=--quiet
if [ -t 1 ]; then quiet=; fi  # some minutes of progress, only for a terminal
.venv/bin/python -m pip install $quiet --disable-pip-version-check --no-compile \
    --editable . --requirement requirements.txt "$@" ${cuda:+"$cuda"}
# On all cores; pip would use one. Some packages contain files that are not meant to be compiled.
.venv/bin/python -m compileall -qq -j 0 .venv/lib || true
touch "$stamp"
