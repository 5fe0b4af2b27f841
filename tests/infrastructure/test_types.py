"""mypy reads only the AWS services that the stacks use: one left out would be taken for anything."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_service_that_a_stack_imports_is_checked() -> None:
    overrides = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]["overrides"]
    checked = {name for given in overrides if given.get("follow_imports") == "normal" for name in given["module"]}
    source = "".join(path.read_text() for path in [ROOT / "app.py", *(ROOT / "stacks").rglob("*.py")])
    imported = {f"aws_cdk.{name}" for name in re.findall(r"from aws_cdk import (aws_\w+)", source)}
    assert imported <= checked
    assert imported
