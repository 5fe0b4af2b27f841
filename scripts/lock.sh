#!/bin/sh
# Pin pyproject.toml into requirements/*.txt for every supported Python: versions and hashes, no addresses.
set -eu
compile() { uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header "$@"; }
compile pyproject.toml --all-extras --output-file requirements/dev.txt
python requirements/lock_layers.py
