"""Behaviour of the emulator that the platform relies on; each test stands for a quirk that a new version may change."""

import base64
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
import pytest

PASSWORD = "Contract-app-1"


@pytest.fixture(scope="module")
def api(emulator: Any) -> str:
    return f"{emulator.url}/_aws/execute-api/{emulator.outputs()['ApiId']}"


@pytest.fixture(scope="module")
def tokens(emulator: Any) -> dict[str, str]:
    cognito, ids = emulator.client("cognito-idp"), emulator.outputs()
    pool, name = ids["PoolId"], "ann@example.com"
    cognito.admin_create_user(UserPoolId=pool, Username=name, MessageAction="SUPPRESS")
    cognito.admin_set_user_password(UserPoolId=pool, Username=name, Password=PASSWORD, Permanent=True)
    cognito.admin_add_user_to_group(UserPoolId=pool, Username=name, GroupName="admin")
    answer = cognito.initiate_auth(
        ClientId=ids["ClientId"],
        AuthFlow="USER_PASSWORD_AUTH",
        AuthParameters={"USERNAME": name, "PASSWORD": PASSWORD},
    )
    return dict(answer["AuthenticationResult"])


@pytest.fixture(scope="module")
def signed_in(tokens: dict[str, str]) -> dict[str, str]:
    return {"authorization": f"Bearer {tokens['AccessToken']}"}


class TestAuthorizer:
    def test_accepts_an_access_token_and_hands_on_its_claims(self, api: str, signed_in: dict[str, str]) -> None:
        claims = httpx.get(f"{api}/projects/p1", headers=signed_in).json()["claims"]
        assert claims["cognito:groups"] == "[admin]"
        assert claims["token_use"] == "access" and claims["sub"]

    def test_refuses_a_call_without_a_token(self, api: str) -> None:
        assert httpx.get(f"{api}/projects/p1").status_code == 401

    def test_refuses_a_forged_signature(self, api: str, tokens: dict[str, str]) -> None:
        head, body, signature = tokens["AccessToken"].split(".")
        claims = json.loads(base64.urlsafe_b64decode(body + "=="))
        claims["cognito:groups"] = ["admin", "root"]
        forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
        headers = {"authorization": f"Bearer {head}.{forged}.{signature}"}
        assert httpx.get(f"{api}/projects/p1", headers=headers).status_code == 401

    def test_refuses_the_none_algorithm(self, api: str, tokens: dict[str, str]) -> None:
        _head, body, _signature = tokens["AccessToken"].split(".")
        head = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').decode().rstrip("=")
        headers = {"authorization": f"Bearer {head}.{body}."}
        assert httpx.get(f"{api}/projects/p1", headers=headers).status_code == 401

    def test_refuses_an_expired_token(self, emulator: Any, api: str, tokens: dict[str, str]) -> None:
        headers = {"authorization": f"Bearer {expired(emulator, tokens['AccessToken'])}"}
        assert httpx.get(f"{api}/projects/p1", headers=headers).status_code == 401

    def test_leaves_open_routes_open(self, api: str) -> None:
        answer = httpx.get(f"{api}/open")
        assert answer.status_code == 200 and answer.json()["claims"] is None


def expired(emulator: Any, token: str) -> str:
    """The same token as the pool would have signed it for a minute that has passed."""
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import padding

    pool = emulator.outputs()["PoolId"]
    key = serialization.load_pem_private_key(
        (emulator.state / "cognito-pool-keys" / f"{pool}-access.pem").read_bytes(), password=None
    )
    head, body, _ = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    claims |= {"exp": int(time.time()) - 60, "iat": int(time.time()) - 360}
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    signature = key.sign(f"{head}.{body}".encode(), padding.PKCS1v15(), hashes.SHA256())  # type: ignore[union-attr,call-arg]
    return f"{head}.{body}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


class TestHttpApi:
    def test_chooses_the_most_specific_route(self, api: str, signed_in: dict[str, str]) -> None:
        general = httpx.get(f"{api}/projects/p1/keys/k1", headers=signed_in).json()
        special = httpx.get(f"{api}/projects/p1/deployments/d1", headers=signed_in).json()
        assert general["function"] == "contract-general"
        assert special["function"] == "contract-snap"
        assert special["parameters"] == {"project_id": "p1", "proxy": "d1"}

    def test_does_not_make_a_call_wait_for_a_long_one(
        self, emulator: Any, eventually: Any, api: str, signed_in: dict[str, str]
    ) -> None:
        with ThreadPoolExecutor(1) as pool:
            slow = pool.submit(httpx.get, f"{api}/slow", headers=signed_in, timeout=20)
            eventually(lambda: emulator.seen("slow"))
            for _ in range(5):
                assert httpx.get(f"{api}/open").status_code == 200
            assert not slow.done()
            (emulator.state / "seen.jsonl.go").touch()
            assert slow.result().status_code == 200

    def test_gives_each_function_its_environment_and_context(self, api: str) -> None:
        seen = httpx.get(f"{api}/open").json()
        assert seen["environment"] == {
            "OWN_NAME": "general",
            "CONTRACT_TABLE": "contract",
            "AWS_LAMBDA_FUNCTION_NAME": "contract-general",
        }
        assert 0 < seen["remaining_ms"] <= 10_000


class TestGuard:
    def test_refuses_a_foreign_host(self, emulator: Any) -> None:
        answer = httpx.get(emulator.url, headers={"host": "evil.example:80"})
        assert answer.status_code == 403 and answer.json()["code"] == "foreign_origin"

    def test_refuses_a_page_of_another_site(self, emulator: Any) -> None:
        answer = httpx.post(f"{emulator.url}/_ministack/reset", headers={"origin": "https://evil.example"})
        assert answer.status_code == 403


class TestStateMachines:
    def run(self, emulator: Any, do: str) -> dict[str, Any]:
        client, name = emulator.client("stepfunctions"), f"{do}-{uuid4()}"
        arn = client.start_execution(
            stateMachineArn=emulator.outputs()["MachineArn"],
            name=name,
            input=json.dumps({"do": do, "run": name}),
        )["executionArn"]
        while (execution := client.describe_execution(executionArn=arn))["status"] == "RUNNING":
            time.sleep(0.02)
        return dict(execution)

    def test_catches_an_exception_by_its_class_name(self, emulator: Any) -> None:
        output = json.loads(self.run(emulator, "out_of_stock")["output"])
        assert output["caught"] == "caught" and output["error"]["Error"] == "OutOfStock"
        assert json.loads(output["error"]["Cause"])["errorMessage"] == "no GPU left"

    def test_catches_others_as_all(self, emulator: Any) -> None:
        assert json.loads(self.run(emulator, "other")["output"])["caught"] == "caught_other"

    def test_retries_by_class_name(self, emulator: Any) -> None:
        assert json.loads(self.run(emulator, "transient")["output"])["Payload"] == {"calls": 2}

    def test_reports_a_timeout(self, emulator: Any) -> None:
        assert json.loads(self.run(emulator, "stuck")["output"]) == "timed_out"

    def test_refuses_a_second_execution_of_the_same_name(self, emulator: Any) -> None:
        client = emulator.client("stepfunctions")
        request = {"stateMachineArn": emulator.outputs()["MachineArn"], "name": f"once-{uuid4()}", "input": "{}"}
        client.start_execution(**request)
        with pytest.raises(client.exceptions.ExecutionAlreadyExists):
            client.start_execution(**request)


class TestEvents:
    def test_a_stream_reaches_its_function(self, emulator: Any, eventually: Any) -> None:
        emulator.client("dynamodb").put_item(TableName="contract", Item={"pk": {"S": "streamed"}})
        eventually(lambda: "streamed" in emulator.seen("stream"))

    def test_the_bus_reaches_a_queue_and_the_queue_a_function(self, emulator: Any, eventually: Any) -> None:
        entry = {"EventBusName": "contract", "Source": "contract", "DetailType": "t", "Detail": '{"marker": "bus"}'}
        assert emulator.client("events").put_events(Entries=[entry])["FailedEntryCount"] == 0
        eventually(lambda: any(message.get("detail") == {"marker": "bus"} for message in emulator.seen("queue")))

    def test_an_upload_reaches_a_queue(self, emulator: Any, eventually: Any) -> None:
        url = emulator.client("s3").generate_presigned_url(
            "put_object", Params={"Bucket": "contract-uploads", "Key": "batch/1.gz"}
        )
        assert httpx.put(url, content=b"rows").status_code == 200

        def keys() -> list[str]:
            records = [record for message in emulator.seen("queue") for record in message.get("Records", [])]
            return [record["s3"]["object"]["key"] for record in records]

        eventually(lambda: "batch/1.gz" in keys())
