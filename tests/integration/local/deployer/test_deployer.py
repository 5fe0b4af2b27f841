"""The deployer against the emulator: create, leave alone, update, fail."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from foundry_local import deployer


def changed(assembly: Path, to: Path, change: Any) -> Path:
    shutil.copytree(assembly, to)
    file = to / "contract-data.template.json"
    template = json.loads(file.read_text())
    change(template["Resources"])
    file.write_text(json.dumps(template))
    return to


def test_stacks_are_created_in_order_of_their_exports(emulator: Any, contract_assembly: Path) -> None:
    function = emulator.client("lambda").get_function_configuration(FunctionName="contract-general")
    assert function["Environment"]["Variables"]["CONTRACT_TABLE"] == "contract"
    assert emulator.outputs("contract-data")["KeyId"]


def test_an_unchanged_stack_is_left_alone(emulator: Any, contract_assembly: Path) -> None:
    actions = deployer.deploy(contract_assembly, emulator.url).actions
    assert actions == {"contract-data": "unchanged", "contract-services": "unchanged"}


def test_a_changed_stack_is_updated_in_place(new_emulator: Any, contract_assembly: Path, tmp_path: Path) -> None:
    deployer.deploy(contract_assembly, new_emulator.url)
    table = new_emulator.client("dynamodb")
    table.put_item(TableName="contract", Item={"pk": {"S": "kept"}})

    def longer(resources: Any) -> None:
        queue = next(r for r in resources.values() if r["Type"] == "AWS::SQS::Queue")
        queue["Properties"]["VisibilityTimeout"] = 77

    actions = deployer.deploy(changed(contract_assembly, tmp_path / "cdk.out", longer), new_emulator.url).actions
    assert actions == {"contract-data": "updated", "contract-services": "unchanged"}
    sqs = new_emulator.client("sqs")
    url = sqs.get_queue_url(QueueName="contract")["QueueUrl"]
    attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["VisibilityTimeout"])["Attributes"]
    assert attributes["VisibilityTimeout"] == "77"
    assert table.get_item(TableName="contract", Key={"pk": {"S": "kept"}})["Item"]


def test_a_failure_names_the_resource_and_can_be_mended(
    new_emulator: Any, contract_assembly: Path, tmp_path: Path
) -> None:
    def broken(resources: Any) -> None:
        queue = next(r for r in resources.values() if r["Type"] == "AWS::SQS::Queue")
        queue["Properties"]["VisibilityTimeout"] = 99_999_999

    assembly = changed(contract_assembly, tmp_path / "cdk.out", broken)
    with pytest.raises(deployer.DeployError, match="AWS::SQS::Queue"):
        deployer.deploy(assembly, new_emulator.url)
    actions = deployer.deploy(contract_assembly, new_emulator.url).actions
    assert set(actions.values()) == {"created"}


def test_an_app_that_does_not_synthesize_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("raise SystemExit('no such stage')")
    with pytest.raises(deployer.SynthError, match="no such stage"):
        deployer.synthesize(tmp_path, tmp_path / "cdk.out", {})


def test_an_app_is_synthesized_again_when_its_sources_change(tmp_path: Path) -> None:
    writes = "import os, pathlib; p = pathlib.Path(os.environ['CDK_OUTDIR']) / 'manifest.json'; p.write_text('{}')"
    (tmp_path / "app.py").write_text(writes)
    assert deployer.synthesize(tmp_path, tmp_path / "cdk.out", {})
    assert not deployer.synthesize(tmp_path, tmp_path / "cdk.out", {})
    assert deployer.synthesize(tmp_path, tmp_path / "cdk.out", {"stage": "other"})
    (tmp_path / "app.py").write_text(writes + "\n")
    assert deployer.synthesize(tmp_path, tmp_path / "cdk.out", {"stage": "other"})
