"""Merge the OpenAPI documents of all domains into one.

usage: python scripts/openapi.py OUTPUT
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

from foundry_core.errors import Problem

DOMAINS = ("app", "cluster", "metrics", "model", "sim")
_ANONYMOUS = ("/gateway/",)  # these routes check a gateway's token themselves


def merged() -> dict[str, Any]:
    """One document with every path; a path or schema that two domains define differently is an error."""
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "Foundry", "version": "1", "license": {"name": "Apache-2.0"}},
        "security": [{"cognito": []}],
        "paths": {},
        "components": {
            "schemas": {"Problem": Problem.model_json_schema()},
            "securitySchemes": {
                "cognito": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "gateway": {"type": "http", "scheme": "bearer"},
            },
        },
    }
    for domain in DOMAINS:
        part = importlib.import_module(f"functions.{domain}.handler").app.openapi()
        _add(document["paths"], part["paths"], "path")
        _add(document["components"]["schemas"], part.get("components", {}).get("schemas", {}), "schema")
    for path in document["paths"]:
        if path.startswith(_ANONYMOUS):
            for operation in document["paths"][path].values():
                operation["security"] = [{"gateway": []}]
    return document


def _add(into: dict[str, Any], more: dict[str, Any], what: str) -> None:
    for name, value in more.items():
        if into.setdefault(name, value) != value:
            raise SystemExit(f"{what} {name} is defined twice, differently")


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(merged(), indent=1, sort_keys=True) + "\n")
