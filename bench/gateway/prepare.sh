# Sourced by run and soak from the root of the repository: the C programs, and the form of the gateway that is measured.
python=.venv/bin/python
work=.foundry/bench
[ -x "$python" ] || { echo "There is no $python. Run: make install" >&2; exit 1; }
command -v cc >/dev/null || { echo "The engines and the load are C programs. Install a C compiler (cc), such as gcc." >&2; exit 1; }
mkdir -p "$work"
cc -O2 -Wall -o "$work/engine" bench/gateway/engine.c
cc -O2 -Wall -o "$work/load" bench/gateway/load.c -lm
# What the image ships is measured: its packages (others, where they are there, make some of these load more) ...
if ! cmp -s gateway_container/requirements.txt "$work/image/requirements.txt"; then
  echo "installing the packages of the image ..." >&2
  rm -rf "$work/image"
  "$python" -m venv "$work/image"
  "$work/image/bin/pip" install -q --require-hashes --no-deps -r gateway_container/requirements.txt >"$work/image.log" 2>&1
  cp gateway_container/requirements.txt "$work/image/"
fi
export GATEWAY_PYTHON="$PWD/$work/image/bin/python"
# ... its kind of interpreter, where bench/gateway/python has fetched one that loads what ours compiles ...
if [ -x "$work/python/python" ] && "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 13))'; then
  export GATEWAY_PYTHON="$PWD/$work/python/python"
fi
# ... and the compiled form, made again when a source has changed.
stamp=$(cat gateway_container/compile.py $(find gateway_container/gateway -name '*.py' | sort) | sha256sum | cut -c1-16)
if [ ! -d "$work/compiled/$stamp" ]; then
  echo "compiling the hot path: some minutes, again after each change of it ..." >&2
  rm -rf "$work/compiled" "$work/compiling"
  if "$python" gateway_container/compile.py "$work/compiling" >"$work/compile.log" 2>&1; then
    mkdir "$work/compiled" && mv "$work/compiling" "$work/compiled/$stamp"
  else
    echo "the hot path could not be compiled ($work/compile.log): the interpreted form is measured" >&2
  fi
fi
[ ! -d "$work/compiled/$stamp" ] || export GATEWAY_PACKAGE="$work/compiled/$stamp"
