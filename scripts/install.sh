#!/bin/sh
# Build the environment: pinned, hash-checked, without touching anything outside it. Safe to run again.
# usage: install.sh PYTHON VENV
set -eu
python=$1 venv=$2
if ! command -v "$python" >/dev/null; then
    echo "No Python 3.11, 3.12 or 3.13 with venv found. Install one, e.g.: apt-get install python3 python3-venv" >&2
    exit 1
fi
if [ -e "$venv/bin/python" ] && [ "$("$python" -V)" != "$("$venv/bin/python" -V 2>/dev/null)" ]; then
    rm -rf "$venv" # another Python than last time
fi
[ -e "$venv/bin/pip" ] || "$python" -m venv "$venv"
echo "Installing into $venv with $("$python" -V) (2 to 3 minutes the first time) ..."
quiet="-qq --disable-pip-version-check --no-input"
"$venv/bin/pip" install $quiet --require-hashes --no-deps -r requirements/dev.txt
"$venv/bin/pip" install $quiet --no-deps --no-build-isolation --editable .
touch "$venv/.installed"
