#!/bin/sh
# Installs the requirements of the tests if necessary, and runs the tests on all cores. There is one
# process more than cores, because some tests wait for other processes.
# Usage: ./test.sh [pytest arguments]
set -eu
cd "$(dirname "$0")"
./install.sh -r tests/requirements.txt
count='import os; print(min((os.cpu_count() or 1) + 1, 5))'
exec .venv/bin/python -m pytest --numprocesses="$(.venv/bin/python -c "$count")" --dist=worksteal "$@"
