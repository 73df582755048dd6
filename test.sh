#!/bin/sh
# Installs what is missing and runs the tests, on all cores: ./test.sh [pytest arguments]
set -eu
cd "$(dirname "$0")"
./install.sh -r tests/requirements.txt
exec .venv/bin/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=worksteal "$@"
