"""Runs in a process of its own: import modules as if only some distributions were installed.

The argument is JSON: `distributions` (names), `packages` (ours), `imports`.
"""

import importlib
import json
import re
import sys
from collections.abc import Sequence
from importlib import metadata
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

OURS = {"foundry_cli", "foundry_core", "foundry_local", "foundry_sim", "functions", "gateway", "stacks"}


class Absent(MetaPathFinder):
    """Finds nothing, loudly, for every module that Lambda would not have."""

    def __init__(self, absent: set[str]) -> None:
        self.absent = absent

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        parts = fullname.split(".")
        if parts[0] in self.absent or "tests" in parts[1:]:
            raise ModuleNotFoundError(f"Lambda has no {fullname!r}", name=fullname)
        return None


def main() -> None:
    wanted = json.loads(sys.argv[1])
    allowed = {normal(name) for name in wanted["distributions"]}
    installed = metadata.packages_distributions()
    others = {top for top, names in installed.items() if not allowed & {normal(name) for name in names}}
    absent = (others | OURS) - set(wanted["packages"])
    sys.meta_path.insert(0, Absent(absent))
    for name in wanted["imports"]:
        importlib.import_module(name)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


main()
