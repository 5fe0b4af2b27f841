#!/bin/sh
# Print the newest Python from 3.11 to 3.13 (the Lambda runtime) on PATH or among pyenv's versions.
# A candidate counts only if it runs and can make virtual environments.
for minor in 13 12 11; do
    for candidate in "python3.$minor" "$HOME"/.pyenv/versions/3."$minor".*/bin/python3 python3; do
        path=$(command -v "$candidate" 2>/dev/null) || continue
        "$path" -c "import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, $minor))" 2>/dev/null || continue
        echo "$path"
        exit 0
    done
done
echo python-3.11-or-newer-not-found
