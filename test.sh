#!/bin/sh
# Installs the requirements of the tests if necessary, and runs the tests on all cores; with --quick
# those that a change most often breaks (tests/conftest.py lists them), in a tenth of the time.
# Usage: ./test.sh [--quick] [pytest arguments]
set -eu
cd "$(dirname "$0")"
./install.sh -r tests/requirements.txt
processes="--numprocesses=auto --maxprocesses=4 --dist=worksteal"
for argument; do
    [ "$argument" != --quick ] || processes= # each would load TensorFlow
done
# shellcheck disable=SC2086
exec .venv/bin/python -m pytest $processes "$@"
