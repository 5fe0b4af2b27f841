"""Every operation of the OpenAPI document with made-up input: no answer is a server error, every error a problem."""

import json
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error

DOCUMENT = Path(__file__).parents[2] / "docs" / "openapi.json"
schema = schemathesis.openapi.from_dict(json.loads(DOCUMENT.read_text()))
schema.config.phases.update(phases=["fuzzing"])


@schema.parametrize()
@settings(
    max_examples=8, deadline=None, phases=[Phase.generate], derandomize=True,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
def test_no_server_error(case: Any, platform: Any, job: Any) -> None:
    _aim(case, job)
    headers = {"authorization": f"Bearer {platform.token('admin')}"}
    answer = case.call(base_url=platform.status.api_url, headers=headers)
    case.validate_response(answer, checks=[not_a_server_error])
    if answer.status_code >= 400 and answer.headers.get("content-type") == "application/problem+json":
        assert {"code", "detail", "status", "title"} <= set(answer.json())


def _aim(case: Any, job: Any) -> None:
    """Made-up ids find nothing: let requests that destroy nothing reach what is there."""
    known = {"project_id": job.project_id, "cluster_id": job.cluster_id, "model_id": job.model["id"]}
    if case.method in {"GET", "POST"}:
        case.path_parameters.update({name: known[name] for name in case.path_parameters if name in known})
