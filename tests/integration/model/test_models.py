"""The registry through its Lambda handler: what is kept, what is refused and how it is said."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest

EXAMPLES = Path(__file__).parents[3] / "examples" / "models"
DENSE = json.loads((EXAMPLES / "llama-3.1-8b-instruct.json").read_text())
Call = Callable[..., Any]


@pytest.fixture
def model(call: Call) -> dict[str, Any]:
    created: dict[str, Any] = call("POST", "/models", {"name": "llama", "config": DENSE}).ok(201)
    return created


@pytest.mark.parametrize(
    ("file", "parameters", "kv_bytes"),
    [
        ("llama-3.1-8b-instruct.json", 8_030_261_248, 131_072),
        ("qwen3-30b-a3b.json", 30_532_122_624, 98_304),
        ("deepseek-v2-lite.json", 15_706_484_224, 31_104),
    ],
)
def test_a_config_becomes_exact_facts(call: Call, file: str, parameters: int, kv_bytes: int) -> None:
    config = json.loads((EXAMPLES / file).read_text())
    model = call("POST", "/models", {"name": "m", "config": config}).ok(201)
    assert abs(model["parameters"] / parameters - 1) < 0.001
    assert model["kv_bytes_per_token"] == {"bf16": kv_bytes, "fp8": kv_bytes // 2}
    assert model["weight_bytes"]["checkpoint"] == pytest.approx(2 * parameters, rel=0.001)


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("llama-3.1-8b-instruct.json", "meta-llama/Llama-3.1-8B-Instruct"),
        ("qwen3-30b-a3b.json", "Qwen/Qwen3-30B-A3B"),
        ("deepseek-v2-lite.json", "deepseek-ai/DeepSeek-V2-Lite"),
    ],
)
def test_the_examples_are_what_is_bundled(call: Call, file: str, source: str) -> None:
    config = json.loads((EXAMPLES / file).read_text())
    ours = call("POST", "/models", {"name": "ours", "config": config}).ok(201)
    known = call("POST", "/models", {"name": "known", "source": source}).ok(201)
    assert ours["architecture"] == known["architecture"] and ours["weight_bytes"] == known["weight_bytes"]
    assert known["repository"] == source and ours["repository"] is None


@pytest.mark.parametrize("repository", ["--trust-remote-code", "a b", "$(id)", "a\nb", ""])
def test_a_repository_is_a_name(call: Call, repository: str) -> None:
    body = {"name": "m", "config": DENSE, "repository": repository}
    call("POST", "/models", body).problem(422, "invalid_request")


def test_create_answers_where_the_model_is(call: Call, model: dict[str, Any]) -> None:
    answer = call("POST", "/models", {"name": "other", "config": DENSE})
    assert answer.headers["location"] == f"/models/{answer.body['id']}"
    found = call("GET", answer.headers["location"])
    assert found.ok() == answer.body and found.body["config"] == DENSE
    assert call("GET", f"/models/{model['id']}", headers={"if-none-match": found.headers["etag"]}).status == 200
    unchanged = call("GET", f"/models/{found.body['id']}", headers={"if-none-match": found.headers["etag"]})
    assert (unchanged.status, unchanged.body, unchanged.headers["etag"]) == (304, None, found.headers["etag"])


def test_a_registration_is_announced(call: Call, model: dict[str, Any]) -> None:
    events = [json.loads(item["event"]["S"]) for item in items() if item["kind"]["S"] == "outbox"]
    assert [(event["type"], event["subject"]) for event in events] == [("foundry.model.registered.v1", model["id"])]


def items() -> list[dict[str, Any]]:
    return list(boto3.client("dynamodb").scan(TableName="foundry-test-model")["Items"])


def test_a_taken_name_is_refused_and_nothing_is_written(call: Call, model: dict[str, Any]) -> None:
    before = len(items())
    call("POST", "/models", {"name": "llama", "config": DENSE}).problem(409, "name_taken")
    assert len(items()) == before


def test_a_deleted_model_frees_its_name(call: Call, model: dict[str, Any]) -> None:
    assert call("DELETE", f"/models/{model['id']}").status == 204
    call("GET", f"/models/{model['id']}").problem(404, "model_not_found")
    call("DELETE", f"/models/{model['id']}").problem(404, "model_not_found")
    call("POST", "/models", {"name": "llama", "config": DENSE}).ok(201)


def test_a_known_model_needs_no_config(call: Call) -> None:
    entry = call("GET", "/models/catalogue").ok()["items"][0]
    model = call("POST", "/models", {"name": "known", "source": entry["name"].upper()}).ok(201)
    assert model["parameters"] == entry["parameters"] and model["config"]["model_type"]


def test_an_unknown_model_says_what_to_do(call: Call) -> None:
    for source in ("no/such-model", "/etc/passwd", "examples/models/llama-3.1-8b-instruct.json", "../x"):
        problem = call("POST", "/models", {"name": "m", "source": source}).problem(422, "model_not_found")
        assert "config.json" in problem["next_action"]


BAD_CONFIGS: dict[str, tuple[dict[str, Any], str]] = {
    "empty": ({}, "vocab_size|hidden_size|num_hidden_layers"),
    "missing": ({k: v for k, v in DENSE.items() if k != "num_hidden_layers"}, "num_hidden_layers"),
    "text": ({**DENSE, "hidden_size": "wide"}, "hidden_size"),
    "negative": ({**DENSE, "num_hidden_layers": -1}, "num_hidden_layers"),
    "huge": ({**DENSE, "num_hidden_layers": 10**12}, "num_hidden_layers"),
    "list": ({**DENSE, "quantization_config": [1]}, "quantization_config"),
}


@pytest.mark.parametrize("case", BAD_CONFIGS)
def test_a_malformed_config_names_its_field(call: Call, case: str) -> None:
    config, fields = BAD_CONFIGS[case]
    problem = call("POST", "/models", {"name": "m", "config": config}).problem(422, "config_invalid")
    assert any(field in problem["detail"] for field in fields.split("|")) and not items()


@pytest.mark.parametrize(
    "body",
    [
        '{"name": "m", "config": {"hidden_size": NaN}}',
        '{"name": "m", "config": {"note": 1e999}}',
        '{"name": "m", "config": {"note": "\\ud800"}}',
        '{"name": "m", "config": {"hidden_size": ' + "9" * 5000 + "}}",
        '{"name": "m", "config": ' + '{"a":' * 20000 + "1" + "}" * 20001,
        '{"name": "m", "config": [1]}',
        '{"name": "m"}',
        '{"name": "m", "config": {}, "source": "x"}',
        '{"name": "Not A Name", "source": "x"}',
        '{"name": "-m", "source": "x"}',
        '{"name": "m", "source": "x", "admin": true}',
        "[]",
        "{",
        "",
    ],
)
def test_hostile_bodies_get_a_problem_document(call: Call, body: str) -> None:
    answer = call("POST", "/models", body)
    assert answer.status in {400, 422}, answer.body
    assert answer.headers["content-type"] == "application/problem+json" and not items()


def test_an_oversized_config_is_refused(call: Call) -> None:
    config = {**DENSE, "note": "x" * 300_000}
    call("POST", "/models", {"name": "m", "config": config}).problem(413, "config_too_large")
    call("POST", "/models", {"name": "m", "config": {**DENSE, "note": "x" * 1_000_000}}).problem(413, "body_too_large")


def test_lists_are_paged(call: Call) -> None:
    names = [f"m{number}" for number in range(5)]
    for name in names:
        call("POST", "/models", {"name": name, "config": DENSE}).ok(201)
    seen, cursor = [], None
    for _ in range(3):
        page = call("GET", "/models", limit=2, **({"cursor": cursor} if cursor else {})).ok()
        seen += [model["name"] for model in page["items"]]
        cursor = page["next_cursor"]
    assert sorted(seen) == names and "config" not in page["items"][0]
    call("GET", "/models", cursor="bm9wZQ").problem(422, "bad_cursor")
    call("GET", "/models", limit=101).problem(422, "invalid_request")


def test_a_replayed_request_creates_one_model(call: Call) -> None:
    body, headers = {"name": "m", "config": DENSE}, {"idempotency-key": "k1"}
    first, again = (call("POST", "/models", body, headers=headers).ok(201) for _ in range(2))
    assert first == again and len(call("GET", "/models").ok()["items"]) == 1
    call("POST", "/models", {"name": "n", "config": DENSE}, headers=headers).problem(422, "idempotency_key_reused")


@pytest.mark.parametrize(
    ("role", "write", "read"),
    [("admin", 201, 200), ("developer", 201, 200), ("operator", 403, 200), ("auditor", 403, 200), ("client", 403, 403)],
)
def test_roles(call: Call, role: str, write: int, read: int) -> None:
    assert call("POST", "/models", {"name": "m", "config": DENSE}, principal=role).status == write
    assert call("GET", "/models", principal=role).status == read


def test_no_token(call: Call) -> None:
    call("GET", "/models", principal=None).problem(401, "unauthenticated")
