"""Keys of external providers: given once, never shown again, and opened by gateways alone."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError
from foundry_core import aws, secrets
from foundry_core.settings import settings
from gateway.core.snapshot import load
from gateway.credentials import Credentials, NoCredential

Call = Callable[..., Any]
SECRET, NEWER = "sk-provider-1234567890", "sk-provider-0987654321"
ENDPOINT = {"name": "claude", "provider": "anthropic", "url": "https://api.example.com", "model": "m",
            "credential": "main"}  # fmt: skip


@pytest.fixture(autouse=True)
def secrets_key(aws_tables: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    key = str(aws.client("kms").create_key()["KeyMetadata"]["KeyId"])
    monkeypatch.setenv("SECRETS_KEY_ID", key)
    settings.cache_clear()
    yield key


@pytest.fixture
def path(call: Call, project: str) -> str:
    """Of the credential that an endpoint of the project uses."""
    call("POST", f"/projects/{project}/endpoints", ENDPOINT).ok(201)
    return f"/projects/{project}/credentials/main"


@pytest.fixture
def token(call: Call) -> str:
    return str(call("POST", "/gateways", {"name": "edge"}, "operator").ok(201)["token"])


def fetched(call: Call, token: str) -> dict[str, Any]:
    """The config as a gateway gets it, and keeps it on its disk."""
    config: dict[str, Any] = call("GET", "/gateway/config", None, None, {"authorization": f"Bearer {token}"}).ok()
    return config


def opened(config: dict[str, Any], token: str, ref: str, directory: Path | None = None) -> str:
    credentials = Credentials(token, directory)
    credentials.renew(load(json.dumps(config).encode(), None).credentials)
    return credentials.secret(ref)


def test_a_credential_is_stored_sealed_and_never_shown(call: Call, path: str, project: str, token: str) -> None:
    stored = call("PUT", path, {"secret": SECRET}).ok()
    listed = call("GET", f"/projects/{project}/credentials").ok()["items"]
    assert [one["name"] for one in listed] == ["main"] and stored == listed[0]
    kept = aws.client("dynamodb").scan(TableName="foundry-test-app")["Items"]
    assert SECRET not in json.dumps([stored, listed, fetched(call, token)]) + str(kept)


def test_the_gateway_opens_what_its_endpoints_use(call: Call, path: str, project: str, token: str) -> None:
    call("PUT", path, {"secret": f" {SECRET}\n"}).ok()
    call("PUT", f"/projects/{project}/credentials/unused", {"secret": SECRET}).ok()
    config = fetched(call, token)
    assert [one["ref"] for one in config["credentials"]] == [f"{project}.main"]
    assert opened(config, token, f"{project}.main") == SECRET


def test_another_gateways_token_opens_nothing(call: Call, path: str, project: str, token: str) -> None:
    call("PUT", path, {"secret": SECRET}).ok()
    with pytest.raises(NoCredential):
        opened(fetched(call, token), "fgw-another", f"{project}.main")


def test_rotation_and_deletion_are_in_the_next_config(
    call: Call, path: str, project: str, token: str, tmp_path: Path
) -> None:
    ref, versions = f"{project}.main", []
    for secret in (SECRET, NEWER):
        call("PUT", path, {"secret": secret}).ok()
        config = fetched(call, token)
        versions.append(config["version"])
        assert opened(config, token, ref) == secret
    call("DELETE", path).ok(204)
    config = fetched(call, token)
    assert config["version"] > versions[1] > versions[0] and config["credentials"] == []
    with pytest.raises(NoCredential):
        opened(config, token, ref)
    (tmp_path / ref).write_text("sk-mounted\n")
    assert opened(config, token, ref, tmp_path) == "sk-mounted", "gateways may still have a file"


def test_guardrails_get_theirs(call: Call, project: str, token: str) -> None:
    guardrail = {"id": "scan", "kind": "http", "url": "https://scan.example.com", "credential": "scanner"}
    call("POST", f"/projects/{project}/endpoints", {**ENDPOINT, "policy": {"guardrails": [guardrail]}}).ok(201)
    call("PUT", f"/projects/{project}/credentials/scanner", {"secret": SECRET}).ok()
    assert opened(fetched(call, token), token, f"{project}.scanner") == SECRET


def test_one_that_cannot_be_opened_stops_no_other(
    call: Call, path: str, project: str, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    from functions.app.store.table import CONFIG, CredentialItem

    call("PUT", path, {"secret": SECRET}).ok()
    call("POST", f"/projects/{project}/endpoints", {**ENDPOINT, "name": "other", "credential": "other"}).ok(201)
    call("PUT", path.replace("main", "other"), {"secret": NEWER}).ok()
    item = CredentialItem.get(CONFIG, f"CREDENTIAL#{project}#main")
    item.sealed = CredentialItem.get(CONFIG, f"CREDENTIAL#{project}#other").sealed  # another one's, put in its place
    item.save()
    config = fetched(call, token)
    assert [one["ref"] for one in config["credentials"]] == [f"{project}.other"]
    assert f"{project}.main" in caplog.text and NEWER not in caplog.text


def test_the_config_does_not_wait_for_kms(
    call: Call, path: str, project: str, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    call("POST", f"/projects/{project}/endpoints", {**ENDPOINT, "name": "other", "credential": "other"}).ok(201)
    for secret in (SECRET, NEWER):
        call("PUT", path, {"secret": secret}).ok()
        call("PUT", path.replace("main", "other"), {"secret": secret}).ok()
        if secret == SECRET:
            credentials = Credentials(token, None)
            credentials.renew(load(json.dumps(fetched(call, token)).encode()).credentials)
    asked = list[str]()

    def decrypt(**_: object) -> None:
        asked.append("decrypt")
        raise ClientError({"Error": {"Code": "ThrottlingException"}}, "Decrypt")

    with monkeypatch.context() as busy:
        busy.setattr(secrets, "client", lambda *_: SimpleNamespace(decrypt=decrypt))
        answer = call("GET", "/gateway/config", None, None, {"authorization": f"Bearer {token}"})
    assert len(answer.ok()["endpoints"]) == 2 and "etag" not in answer.headers and asked == ["decrypt"]
    credentials.renew(load(json.dumps(answer.ok()).encode()).credentials)
    assert credentials.secret(f"{project}.main") == SECRET, "it stays in use until the newer one can be had"
    credentials.renew(load(json.dumps(fetched(call, token)).encode()).credentials)
    assert credentials.secret(f"{project}.main") == NEWER
    credentials.renew({})
    with pytest.raises(NoCredential):
        credentials.secret(f"{project}.main")


@pytest.mark.parametrize("secret", ["", "short", "ä" * 20, "a" * 4097, "line\nbreak-in-it", None])
def test_what_no_header_can_carry_is_refused(call: Call, path: str, secret: str | None) -> None:
    body = call("PUT", path, {"secret": secret}).problem(422, "invalid_request")
    assert not secret or secret not in json.dumps(body)


@pytest.mark.parametrize("name", ["UPPER", "-x", "a.b", "a" * 64])
def test_a_name_is_one_that_endpoints_can_use(call: Call, project: str, name: str) -> None:
    call("PUT", f"/projects/{project}/credentials/{name}", {"secret": SECRET}).problem(422, "invalid_request")


def test_there_is_none(call: Call, project: str) -> None:
    call("DELETE", f"/projects/{project}/credentials/main").problem(404, "credential_not_found")
    call("PUT", "/projects/prj_gone/credentials/main", {"secret": SECRET}).problem(404, "project_not_found")


def test_a_deleted_project_leaves_none(call: Call, project: str) -> None:
    from functions.app.store.table import CONFIG, CredentialItem

    call("PUT", f"/projects/{project}/credentials/main", {"secret": SECRET}).ok()
    call("DELETE", f"/projects/{project}").ok(204)
    assert not list(CredentialItem.query(CONFIG, CredentialItem.sk.startswith(f"CREDENTIAL#{project}#")))
