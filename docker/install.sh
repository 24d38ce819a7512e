#!/bin/sh
# What the image consists of besides its base: an environment with unstill from a wheel. The Dockerfile runs it, and so
# does CI, in an empty folder and without root.
#
#   docker/install.sh WHEEL FOLDER [pip option ...]
#
# With --no-deps, DEPENDENCIES is a folder of site-packages that has them.
set -eu
wheel=${1:?usage: install.sh WHEEL FOLDER} folder=${2:?usage: install.sh WHEEL FOLDER}
shift 2
PYTHON=${PYTHON:-python3}
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11) and "unstill needs Python >= 3.11, found " + sys.version)'
"$PYTHON" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --no-cache-dir "$@" "$wheel"
# the command runs, and it is the wheel's code that runs
PYTHONPATH=${DEPENDENCIES:-} "$folder/bin/unstill" --version
PYTHONPATH=${DEPENDENCIES:-} "$folder/bin/unstill" --help > /dev/null
