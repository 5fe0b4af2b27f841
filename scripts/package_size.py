"""Unzipped size of what Lambda gets for a domain's functions: its code and its layers, built as `cdk deploy` does.

python scripts/package_size.py [DOMAIN]       needs the package registry; exit status 1 beyond the limit
"""

import sys
import tempfile
from pathlib import Path

from stacks.api import LAYERS_OF
from stacks.constructs.code import LAYERS, copy_domain, fill_layer

LIMIT_BYTES = 200_000_000  # Lambda refuses a function with its layers beyond 250 MB
DOMAIN = "sim"


def main(domain: str = DOMAIN) -> int:
    with tempfile.TemporaryDirectory() as folder:
        sizes = _sizes(domain, Path(folder))
    for name, size in {**sizes, "total": sum(sizes.values())}.items():
        sys.stdout.write(f"{name:16} {size / 1e6:7.1f} MB\n")
    return int(sum(sizes.values()) > LIMIT_BYTES)


def _sizes(domain: str, folder: Path) -> dict[str, int]:
    for layer in ("base", *LAYERS_OF.get(domain, ())):
        fill_layer(LAYERS[layer], folder / f"layer {layer}")
    copy_domain(domain, folder / "code")
    return {part.name: _size(part) for part in sorted(folder.iterdir())}


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
