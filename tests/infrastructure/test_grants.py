"""The grants suffice, and go no further: real handlers, each with the credentials of its own role, on an emulator that
verifies signatures and evaluates the policies of the deployed templates.
"""

import gzip
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from foundry_core.clock import now_ms
from foundry_core.events import new_event
from foundry_local.deployer import deploy

ROOT = Path(__file__).parents[2]
ACCOUNT = "000000000000"
ADMIN = {"sub": "u-1", "username": "admin@example.com", "cognito:groups": "[admin]"}
KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: k, user: u}}]
clusters: [{name: k, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: u, user: {token: t}}]
"""
ROOT_KEYS = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local", "AWS_DEFAULT_REGION": "us-east-1"}
Invoke = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {"AUTH": "true", "BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "IOT_MTLS_ENABLED": "0",
                "LOG_LEVEL": "ERROR", "PERSIST_STATE": "0"}  # fmt: skip
    emulator = subprocess.Popen(
        [sys.executable, "-m", "ministack"], env={**os.environ, **ROOT_KEYS, **settings},
        cwd=tmp_path_factory.mktemp("emulator"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        _wait_for(port, emulator)
        yield f"http://127.0.0.1:{port}"
    finally:
        emulator.kill()
        emulator.wait()


def _wait_for(port: int, emulator: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while emulator.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError("the emulator did not start")


@pytest.fixture(scope="module")
def root(endpoint: str) -> Callable[[str], Any]:
    keys = {"aws_access_key_id": "local", "aws_secret_access_key": "local", "region_name": "us-east-1"}
    return lambda service: boto3.client(service, endpoint_url=endpoint, **keys)


@pytest.fixture(scope="module")
def deployed(endpoint: str, assembly: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Policies that demand TLS are left out: the emulator speaks plain HTTP on the loopback interface."""
    copy = tmp_path_factory.mktemp("assembly")
    for path in assembly.glob("*.json"):
        template = json.loads(path.read_text())
        for resource in template.get("Resources", {}).values() if isinstance(template, dict) else ():
            document = resource.get("Properties", {}).get("PolicyDocument")
            if document:
                document["Statement"] = [s for s in document["Statement"] if "SecureTransport" not in json.dumps(s)]
        (copy / path.name).write_text(json.dumps(template))
    for path in assembly.glob("asset.*"):
        (copy / path.name).symlink_to(path)
    actions = deploy(copy, endpoint).actions
    assert len(actions) == 7, actions


@pytest.fixture(scope="module")
def role_keys(deployed: None, root: Callable[[str], Any]) -> Callable[[str], dict[str, str]]:
    """Credentials of a function's role. Lambda would assume it; here its trust is given to the test."""

    def keys(function: str) -> dict[str, str]:
        arn = root("lambda").get_function_configuration(FunctionName=f"foundry-test-{function}")["Role"]
        principal = {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}
        trust = {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}],
        }
        root("iam").update_assume_role_policy(RoleName=arn.split("/")[-1], PolicyDocument=json.dumps(trust))
        given = root("sts").assume_role(RoleArn=arn, RoleSessionName=function)["Credentials"]
        return {"AWS_ACCESS_KEY_ID": given["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": given["SecretAccessKey"],
                "AWS_SESSION_TOKEN": given["SessionToken"]}  # fmt: skip

    return keys


@pytest.fixture(scope="module")
def invoke(endpoint: str, root: Callable[[str], Any], role_keys: Callable[[str], dict[str, str]]) -> Invoke:
    def call(function: str, *events: Any, **more: str) -> list[dict[str, Any]]:
        found = root("lambda").get_function_configuration(FunctionName=f"foundry-test-{function}")
        environment = {
            "PATH": os.environ["PATH"], "AWS_ENDPOINT_URL": endpoint, "AWS_DEFAULT_REGION": "us-east-1",
            **found["Environment"]["Variables"], **role_keys(function), **more,
        }  # fmt: skip
        calls = [{"handler": found["Handler"], "event": event} for event in events]
        command = [sys.executable, str(Path(__file__).with_name("invoke_as.py"))]
        done = subprocess.run(
            command, input=json.dumps(calls), env=environment, cwd=ROOT, capture_output=True, text=True, check=True
        )
        answers: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
        assert "AccessDenied" not in done.stdout + done.stderr, done.stdout[-2000:] + done.stderr[-2000:]
        return answers

    return call


def http(method: str, path: str, body: Any = None, token: str = "", **headers: str) -> dict[str, Any]:
    context: dict[str, Any] = {"http": {"method": method, "path": path, "sourceIp": "203.0.113.9"}, "stage": "$default"}
    if token:
        headers["authorization"] = f"Bearer {token}"
    else:
        context["authorizer"] = {"jwt": {"claims": ADMIN}}
    return {"version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": "", "isBase64Encoded": False,
            "headers": {"host": "api", "content-type": "application/json", **headers}, "requestContext": context,
            **({"body": json.dumps(body)} if body is not None else {})}  # fmt: skip


def body_of(answer: dict[str, Any], status: int) -> Any:
    assert answer.get("answer", {}).get("statusCode") == status, answer
    return json.loads(answer["answer"]["body"])


def stop(root: Callable[[str], Any], flow: str, run: dict[str, Any]) -> None:
    """The execution was started; its functions have no code in this emulator, so it goes no further."""
    arn = f"arn:aws:states:us-east-1:{ACCOUNT}:execution:foundry-test-{flow}:{run['id']}-1"
    root("stepfunctions").stop_execution(executionArn=arn)


@pytest.fixture(scope="module")
def project(invoke: Invoke) -> str:
    (answer,) = invoke("app-api", http("POST", "/projects", {"name": "p"}, **{"idempotency-key": "k-1"}))
    return str(body_of(answer, 201)["id"])


def test_app_administers_people_and_projects(invoke: Invoke, project: str) -> None:
    created, listed, runs = invoke(
        "app-api", http("POST", "/users", {"email": "dev@example.com", "roles": ["developer"]}), http("GET", "/users"),
        http("GET", "/runs"),
    )  # fmt: skip
    person = body_of(created, 201)
    assert [user["email"] for user in body_of(listed, 200)["items"]] == ["dev@example.com"]
    assert body_of(runs, 200)["items"] == []
    changed, disabled = invoke(
        "app-api", http("PATCH", f"/users/{person['id']}", {"roles": ["auditor"]}),
        http("PATCH", f"/users/{person['id']}", {"enabled": False}),
    )  # fmt: skip
    assert body_of(changed, 200)["roles"] == ["auditor"] and body_of(disabled, 200)["enabled"] is False


def test_model_registers(invoke: Invoke) -> None:
    config = json.loads((ROOT / "examples" / "models" / "llama-3.1-8b-instruct.json").read_text())
    (answer,) = invoke("model-api", http("POST", "/models", {"name": "llama", "config": config}))
    body_of(answer, 201)


def test_cluster_seals_credentials_and_starts_its_flow(invoke: Invoke, root: Callable[[str], Any]) -> None:
    (answer,) = invoke(
        "cluster-api", http("POST", "/clusters", {"name": "c", "kind": "onprem", "kubeconfig": KUBECONFIG})
    )
    run = body_of(answer, 202)["run"]
    stop(root, "register-cluster", run)
    (task,) = invoke(
        "cluster-task", {"task": "connect", "step": "connect", "run_id": run["id"], "attempt": 1, "input": {}}
    )
    assert task["error"].startswith("ClusterUnreachable"), task  # it opened the secret, wrote the run, and tried


def test_app_seals_a_credential_and_opens_it_for_a_gateway(invoke: Invoke, project: str) -> None:
    endpoint = {"name": "claude", "provider": "anthropic", "url": "https://api.example.com", "model": "m",
                "credential": "main"}  # fmt: skip
    stored, published, registered = invoke(
        "app-api", http("PUT", f"/projects/{project}/credentials/main", {"secret": "sk-provider-1"}),
        http("POST", f"/projects/{project}/endpoints", endpoint), http("POST", "/gateways", {"name": "sealed"}),
    )  # fmt: skip
    assert body_of(stored, 200)["name"] == "main" and body_of(published, 201)["name"] == "claude"
    (config,) = invoke("app-api", http("GET", "/gateway/config", token=body_of(registered, 201)["token"]))
    assert [one["ref"] for one in body_of(config, 200)["credentials"]] == [f"{project}.main"]


def test_simulation_starts_its_flow_for_a_member(invoke: Invoke, root: Callable[[str], Any], project: str) -> None:
    wish = {
        "model": "llama-3.1-8b-instruct", "workload": {"input_tokens": 128, "output_tokens": 64, "concurrency": 4},
        "device_groups": [{"name": "h100", "device": "h100_sxm", "nodes": 1, "devices_per_node": 8}],
    }  # fmt: skip
    (answer,) = invoke("sim-api", http("POST", f"/projects/{project}/simulations", wish))
    accepted = body_of(answer, 202)
    stop(root, "simulate", accepted["run"])
    resolve = {"task": "resolve_inputs", "step": "resolve_inputs", "run_id": accepted["run"]["id"], "attempt": 1,
               "input": {"project_id": project, "subject_id": accepted["simulation"]["id"]}}  # fmt: skip
    (task,) = invoke("sim-task", resolve)
    assert task.get("answer") == {}, task


def test_the_schedule_starts_its_flow(invoke: Invoke, root: Callable[[str], Any]) -> None:
    delivered_twice = invoke("sim-daily", {}, {})
    assert [answer["answer"] for answer in delivered_twice] == [None, None]
    (listed,) = invoke("app-api", http("GET", "/runs"))
    (run,) = [run for run in body_of(listed, 200)["items"] if run["kind"] == "recommend"]
    stop(root, "recommend", run)


def test_batches_go_from_gateway_to_warehouse(
    invoke: Invoke, root: Callable[[str], Any], project: str, tmp_path: Path
) -> None:
    (made,) = invoke("app-api", http("POST", "/gateways", {"name": "g"}))
    data = gzip.compress(b"this is no metering row\n")
    wish = {"gateway_id": "g-0", "batch_id": "00000000-0000-4000-8000-000000000001", "rows": 1, "bytes": len(data)}
    config, upload = invoke(
        "app-api", http("GET", "/gateway/config", token=body_of(made, 201)["token"]),
        http("POST", "/gateway/uploads", wish, token=body_of(made, 201)["token"]),
    )  # fmt: skip
    body_of(config, 200)
    put = body_of(upload, 200)
    request = urllib.request.Request(put["url"], data=data, headers=put["headers"], method="PUT")
    assert urllib.request.urlopen(request).status == 200
    (bucket,) = [one["Name"] for one in root("s3").list_buckets()["Buckets"] if "metering" in one["Name"]]
    (key,) = [one["Key"] for one in root("s3").list_objects_v2(Bucket=bucket, Prefix="metering/")["Contents"]]
    notices = [
        {"s3": {"bucket": {"name": bucket}, "object": {"key": one}}} for one in (key, "metering/all/g/gone.jsonl.gz")
    ]
    event = {"Records": [{"messageId": "m", "body": json.dumps({"Records": notices})}]}
    (loaded,) = invoke("metrics-loader", event, CLICKHOUSE_DSN=f"chdb://{tmp_path}/warehouse")
    assert loaded["answer"] == {"batchItemFailures": []}, loaded
    assert root("s3").list_objects_v2(Bucket=bucket, Prefix="quarantine/")["KeyCount"] == 1


def test_relay_puts_events(invoke: Invoke) -> None:
    envelope = {"id": "evt_1", "type": "foundry.deployment.ready.v1", "source": "foundry.cluster"}
    image = {
        "pk": {"S": "OUTBOX#evt_1"},
        "sk": {"S": "EVENT"},
        "kind": {"S": "outbox"},
        "event": {"S": json.dumps(envelope)},
    }
    record = {"eventID": "1", "eventName": "INSERT", "eventSource": "aws:dynamodb",
              "dynamodb": {"NewImage": image, "SequenceNumber": "1"}}  # fmt: skip
    (relayed,) = invoke("core-relay", {"Records": [record]})
    assert relayed["answer"] == {"batchItemFailures": []}


@pytest.mark.parametrize("type_", ["foundry.deployment.wake_wanted.v1", "foundry.deployment.idle.v1"])
def test_an_order_to_wake_or_sleep_is_looked_up(invoke: Invoke, type_: str) -> None:
    data = {"project_id": "prj_1", "deployment_id": "dep_gone", "as_of_ms": now_ms()}
    event = new_event(type_, source="app", subject="dep_gone", data=data)
    record = {"messageId": "m", "eventSource": "aws:sqs", "body": json.dumps({"detail": event.model_dump()})}
    (looked,) = invoke("cluster-on-event", {"Records": [record]})
    assert looked["answer"] == {"batchItemFailures": []}, looked


def test_the_schedule_looks_for_the_idle(invoke: Invoke) -> None:
    (looked,) = invoke("app-idle", {})
    assert looked == {"answer": None}


ITEM = {"pk": {"S": "PROJECT#1"}, "sk": {"S": "x"}}
OF_PROJECT = {"KeyConditionExpression": "pk = :k", "ExpressionAttributeValues": {":k": {"S": "PROJECT#1"}}}
DEPLOY = f"arn:aws:states:us-east-1:{ACCOUNT}:stateMachine:foundry-test-deploy-model"
BATCH = {"Bucket": f"foundry-test-metering-{ACCOUNT}-us-east-1", "Key": "metering/a"}


@pytest.mark.parametrize(
    ("function", "service", "operation", "arguments"),
    [
        ("cluster-api", "dynamodb", "put_item", {"TableName": "foundry-test-app", "Item": ITEM}),
        ("cluster-api", "dynamodb", "scan", {"TableName": "foundry-test-app"}),
        ("model-api", "dynamodb", "query", {"TableName": "foundry-test-cluster", **OF_PROJECT}),
        ("cluster-api", "dynamodb", "scan", {"TableName": "foundry-test-cluster"}),
        ("model-api", "dynamodb", "get_item", {"TableName": "foundry-test-cluster", "Key": ITEM}),
        ("sim-task", "dynamodb", "delete_table", {"TableName": "foundry-test-sim"}),
        ("sim-daily", "dynamodb", "get_item", {"TableName": "foundry-test-cluster", "Key": ITEM}),
        ("sim-api", "stepfunctions", "start_execution", {"stateMachineArn": DEPLOY, "input": "{}"}),
        ("cluster-on-event", "stepfunctions", "start_execution", {"stateMachineArn": DEPLOY, "input": "{}"}),
        ("metrics-loader", "s3", "delete_object", BATCH),
        ("app-task", "cognito-idp", "list_user_pools", {"MaxResults": 1}),
        ("core-relay", "sqs", "list_queues", {}),
    ],
)
def test_more_is_denied(
    endpoint: str,
    role_keys: Callable[[str], dict[str, str]],
    function: str,
    service: str,
    operation: str,
    arguments: Any,
) -> None:
    keys = role_keys(function)
    client = boto3.client(
        service, endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"], aws_session_token=keys["AWS_SESSION_TOKEN"],
    )  # fmt: skip
    with pytest.raises(ClientError) as refused:
        getattr(client, operation)(**arguments)
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] in (400, 403)
    assert (
        "Denied" in refused.value.response["Error"]["Code"]
        or "AuthorizationError" in refused.value.response["Error"]["Code"]
    )
