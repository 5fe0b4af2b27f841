"""Compile the hot path with mypyc: the same sources, fewer instructions per request (bench/gateway).

    python gateway_container/compile.py FOLDER

makes FOLDER/gateway: a copy of the package with extension modules beside the sources listed here. Needs a C compiler,
mypy and setuptools. Without this step the gateway runs interpreted; nothing else differs.
"""

import os
import shutil
import sys
from pathlib import Path

from mypyc.build import mypycify
from setuptools import Distribution

SOURCE = Path(__file__).parent / "gateway"
# Not compiled: what msgspec fills (wire, shapes), what others subclass (stage), and what is off the hot path.
MODULES = (
    *("attempts", "connection", "flow", "form_flow", "framing", "front", "header_names", "hot", "journal", "metering"),
    *("pool", "repeated_head", "strict", "upstream", "core/authorise", "core/call", "core/choose", "core/exchange"),
    *("core/headers", "core/health", "core/lease", "core/limit", "core/multipart", "core/policy", "core/problems"),
    *("core/reserve", "core/retry", "core/snapshot", "core/usage", "core/wake", "telemetry"),
)


def build(folder: Path) -> None:
    """Copy and compile. Raises SystemExit when mypyc refuses a source, setuptools' errors when the compiler does."""
    shutil.copytree(SOURCE, folder / "gateway", ignore=shutil.ignore_patterns("__pycache__"))
    os.chdir(folder)
    os.environ["MYPYPATH"] = str(folder)
    options = ["--config-file=", "--ignore-missing-imports"]
    sources = [f"gateway/{module}.py" for module in MODULES]
    level = os.environ.get  # as for the command mypyc
    extensions = mypycify(
        [*options, *sources],
        opt_level=level("MYPYC_OPT_LEVEL", "3"),
        debug_level=level("MYPYC_DEBUG_LEVEL", "1"),
        strip_asserts=True,
    )
    for extension in extensions:  # nobody else defines these functions: they may call each other directly
        extension.extra_compile_args += ["-fno-semantic-interposition", "-fno-plt"]
        extension.extra_link_args += ["-Wl,-Bsymbolic-functions"]
    command = Distribution({"name": "gateway", "ext_modules": extensions}).get_command_obj("build_ext")
    command.inplace = True
    command.ensure_finalized()
    command.run()
    shutil.rmtree(folder / "build")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    build(Path(sys.argv[1]).resolve())
