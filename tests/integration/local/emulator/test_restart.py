"""What survives: a stop, and ``kill -9``."""

import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from foundry_local import deployer

PASSWORD = "Contract-app-1"


@pytest.fixture
def deployed(new_emulator: Any, contract_assembly: Path) -> Any:
    deployer.deploy(contract_assembly, new_emulator.url)
    return new_emulator


def sign_in(emulator: Any) -> str:
    cognito, ids = emulator.client("cognito-idp"), emulator.outputs()
    answer = cognito.initiate_auth(
        ClientId=ids["ClientId"],
        AuthFlow="USER_PASSWORD_AUTH",
        AuthParameters={"USERNAME": "ann@example.com", "PASSWORD": PASSWORD},
    )
    return str(answer["AuthenticationResult"]["AccessToken"])


def fill(emulator: Any) -> dict[str, Any]:
    """Something in every service that the platform uses."""
    ids, data = emulator.outputs(), emulator.outputs("contract-data")
    cognito = emulator.client("cognito-idp")
    cognito.admin_create_user(UserPoolId=ids["PoolId"], Username="ann@example.com", MessageAction="SUPPRESS")
    cognito.admin_set_user_password(
        UserPoolId=ids["PoolId"], Username="ann@example.com", Password=PASSWORD, Permanent=True
    )
    emulator.client("dynamodb").put_item(TableName="contract", Item={"pk": {"S": "kept"}, "raw": {"B": b"\x00\xff"}})
    emulator.client("s3").put_object(Bucket="contract-uploads", Key="a/b.gz", Body=b"\x1f\x8b\x00")
    secret = emulator.client("kms").encrypt(KeyId=data["KeyId"], Plaintext=b"kubeconfig")["CiphertextBlob"]
    stepfunctions = emulator.client("stepfunctions")
    stepfunctions.start_execution(stateMachineArn=ids["MachineArn"], name="waits", input='{"do": "wait"}')
    return {"secret": secret, "token": sign_in(emulator), "ids": ids, "data": data}


def check(emulator: Any, was: dict[str, Any], eventually: Any) -> None:
    api = f"{emulator.url}/_aws/execute-api/{was['ids']['ApiId']}"
    for token in (was["token"], sign_in(emulator)):
        answer = httpx.get(f"{api}/projects/p1", headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == 200
    item = emulator.client("dynamodb").get_item(TableName="contract", Key={"pk": {"S": "kept"}})["Item"]
    assert item["raw"]["B"] == b"\x00\xff"
    body = emulator.client("s3").get_object(Bucket="contract-uploads", Key="a/b.gz")["Body"].read()
    assert body == b"\x1f\x8b\x00"
    assert emulator.client("kms").decrypt(CiphertextBlob=was["secret"])["Plaintext"] == b"kubeconfig"
    entry = {"EventBusName": "contract", "Source": "contract", "DetailType": "t", "Detail": '{"marker": "again"}'}
    emulator.client("events").put_events(Entries=[entry])
    eventually(lambda: any(message.get("detail") == {"marker": "again"} for message in emulator.seen("queue")))


def test_every_service_is_restored_after_a_stop(deployed: Any, eventually: Any) -> None:
    was = fill(deployed)
    deployed.stop()
    deployed.start()
    check(deployed, was, eventually)


def test_every_service_is_restored_after_a_kill(deployed: Any, eventually: Any) -> None:
    was = fill(deployed)
    deployed.saved()
    deployed.kill()
    deployed.start()
    check(deployed, was, eventually)


def test_an_execution_that_was_running_has_failed(deployed: Any) -> None:
    ids = deployed.outputs()
    client = deployed.client("stepfunctions")
    arn = client.start_execution(stateMachineArn=ids["MachineArn"], name="waits", input='{"do": "wait"}')
    deployed.stop()
    deployed.start()
    execution = client.describe_execution(executionArn=arn["executionArn"])
    assert (execution["status"], execution["error"]) == ("FAILED", "States.ServiceRestart")
    with pytest.raises(client.exceptions.ExecutionAlreadyExists):
        client.start_execution(stateMachineArn=ids["MachineArn"], name="waits", input="{}")


def test_a_stream_goes_on_where_it_was(deployed: Any, eventually: Any) -> None:
    table = deployed.client("dynamodb")
    for number in range(5):
        table.put_item(TableName="contract", Item={"pk": {"S": f"before-{number}"}})
    eventually(lambda: "before-4" in deployed.seen("stream"))
    deployed.saved()
    deployed.kill()
    deployed.start()
    table.put_item(TableName="contract", Item={"pk": {"S": "after"}})
    eventually(lambda: "after" in deployed.seen("stream"))
    assert deployed.seen("stream").count("before-0") == 1


def test_a_record_that_nobody_had_read_is_read_after_a_restart(deployed: Any, eventually: Any) -> None:
    functions = deployed.client("lambda")
    mapping = functions.list_event_source_mappings(FunctionName="contract-relay")["EventSourceMappings"][0]["UUID"]
    functions.update_event_source_mapping(UUID=mapping, Enabled=False)
    deployed.client("dynamodb").put_item(TableName="contract", Item={"pk": {"S": "unread"}})
    deployed.saved()
    deployed.kill()
    deployed.start()
    assert "unread" not in deployed.seen("stream")
    functions.update_event_source_mapping(UUID=mapping, Enabled=True)
    eventually(lambda: "unread" in deployed.seen("stream"))


def test_acknowledged_writes_are_durable_within_two_seconds(new_emulator: Any) -> None:
    """Write without a pause, kill at any moment: what was acknowledged two seconds before is there."""
    ssm = new_emulator.client("ssm")
    acknowledged: list[tuple[float, str]] = []
    until = time.monotonic() + 3.3
    while time.monotonic() < until:
        name = f"write-{len(acknowledged)}"
        ssm.put_parameter(Name=name, Value="x", Type="String")
        acknowledged.append((time.monotonic(), name))
    killed_at = time.monotonic()
    new_emulator.kill()
    new_emulator.start()
    old = [name for at, name in acknowledged if killed_at - at >= 2.0]
    assert len(old) > 5
    present = {
        parameter["Name"]
        for page in ssm.get_paginator("describe_parameters").paginate()
        for parameter in page["Parameters"]
    }
    assert not set(old) - present


def test_the_snapshot_is_whole_and_private(new_emulator: Any) -> None:
    new_emulator.client("ssm").put_parameter(Name="one", Value="x", Type="String")
    new_emulator.saved()
    snapshot = new_emulator.state / "snapshot.json"
    assert json.loads(snapshot.read_text())["services"]["ssm"]
    assert snapshot.stat().st_mode & 0o077 == 0
    assert new_emulator.state.stat().st_mode & 0o077 == 0


def test_nothing_is_saved_and_no_event_delivered_before_it_opens(deployed: Any, eventually: Any) -> None:
    """So that a deployment which a kill cuts short has never begun."""
    deployed.client("dynamodb").put_item(TableName="contract", Item={"pk": {"S": "saved"}})
    eventually(lambda: "saved" in deployed.seen("stream"))
    deployed.saved()
    deployed.stop()
    before = (deployed.state / "snapshot.json").read_bytes()
    deployed.start("--closed")
    deployed.client("dynamodb").put_item(TableName="contract", Item={"pk": {"S": "closed"}})
    time.sleep(0.5)
    assert "closed" not in deployed.seen("stream")
    deployed.stop()
    assert (deployed.state / "snapshot.json").read_bytes() == before
