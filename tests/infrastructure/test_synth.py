"""The assembly as a whole: checked by cdk-nag and cfn-lint, counted, deployable in its order."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from cfnlint import lint_file
from foundry_local.deployer import assembly as assemblies

COUNTS = Path(__file__).with_name("resource_counts.json")
# W3005: the CDK writes a DependsOn for a role whose ARN the function refers to anyway.
IGNORED = {"W3005"}
STACKS = ("api", "data", "events", "gateway", "identity", "metrics", "workflows")


def test_cdk_nag_ran_and_had_nothing_to_say(assembly: Path) -> None:
    (report,) = json.loads((assembly / "validation-report.json").read_text())["pluginReports"]
    assert (report["pluginName"], report["conclusion"], report["violations"]) == ("AwsSolutions", "success", [])


@pytest.mark.parametrize("stack", STACKS)
def test_cfn_lint_is_clean(assembly: Path, stack: str) -> None:
    found = [match for match in lint_file(assembly / f"{stack}.template.json") if match.rule.id not in IGNORED]
    assert [str(match) for match in found] == []


def test_stacks(templates: dict[str, Any]) -> None:
    assert sorted(templates) == sorted(STACKS)


def test_resource_counts(templates: dict[str, Any]) -> None:
    """A change here is a change of the platform: look at it, then write the new counts down."""
    counts = {
        stack: dict(sorted(Counter(r["Type"] for r in template["Resources"].values()).items()))
        for stack, template in sorted(templates.items())
    }
    assert counts == json.loads(COUNTS.read_text())


def test_templates_fit_into_cloudformation(assembly: Path, templates: dict[str, Any]) -> None:
    for stack, template in templates.items():
        assert len(template["Resources"]) <= 500
        assert (assembly / f"{stack}.template.json").stat().st_size <= 1_000_000


def test_every_import_is_exported_by_a_stack_that_is_deployed_before(assembly: Path) -> None:
    exported: set[str] = set()
    for stack in assemblies.read(assembly):
        assert set(_values_of("Fn::ImportValue", stack.template)) <= exported, stack.name
        outputs = stack.template.get("Outputs", {}).values()
        exported |= {output["Export"]["Name"] for output in outputs if "Export" in output}


def test_no_account_region_or_zone_is_looked_up(assembly: Path, templates: dict[str, Any]) -> None:
    manifest = json.loads((assembly / "manifest.json").read_text())
    assert "missing" not in manifest
    environments = {a["environment"] for a in manifest["artifacts"].values() if a["type"] == "aws:cloudformation:stack"}
    assert environments == {"aws://unknown-account/unknown-region"}
    assert list(_values_of("Fn::GetAZs", templates)) == []


def _values_of(key: str, value: Any) -> list[str]:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    here = [value[key]] if isinstance(value, dict) and key in value else []
    return [*here, *(found for child in children for found in _values_of(key, child))]
