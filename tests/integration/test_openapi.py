"""The committed API document is what the routes say, and it holds together."""

import json
import re
from pathlib import Path

from scripts.openapi import merged

DOCUMENT = Path(__file__).parents[2] / "docs" / "openapi.json"


def test_the_committed_document_is_current() -> None:
    assert json.loads(DOCUMENT.read_text()) == json.loads(json.dumps(merged())), "run: make openapi"


def test_every_reference_resolves() -> None:
    text = DOCUMENT.read_text()
    named = set(re.findall(r'"#/components/schemas/([^"]+)"', text))
    assert named <= json.loads(text)["components"]["schemas"].keys()


def test_operation_ids_are_unique_and_every_operation_says_what_it_does() -> None:
    operations = [operation for item in merged()["paths"].values() for operation in item.values()]
    ids = [operation["operationId"] for operation in operations]
    assert len(ids) == len(set(ids))
    assert [operation["operationId"] for operation in operations if not operation.get("description")] == []
