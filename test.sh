#!/bin/sh
# Installs the requirements of the tests if necessary, and runs the tests on all cores.
# Usage: ./test.sh [pytest arguments]
set -eu
cd "$(dirname "$0")"
./install.sh -r tests/requirements.txt
exec .venv/bin/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=worksteal "$@"
