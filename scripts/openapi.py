"""Merge the OpenAPI documents of all domains into one.

usage: python scripts/openapi.py OUTPUT
"""

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from foundry_core.errors import Problem

DOMAINS = ("app", "cluster", "metrics", "model", "sim")
_ANONYMOUS = ("/gateway/",)  # these routes check a gateway's token themselves


def merged() -> dict[str, Any]:
    """One document with every path. A schema that domains define differently gets the domain's name in front."""
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
        part = _renamed(part, document["components"]["schemas"], domain)
        document["paths"].update(part["paths"])
        document["components"]["schemas"].update(part.get("components", {}).get("schemas", {}))
    for path in document["paths"]:
        if path.startswith(_ANONYMOUS):
            for operation in document["paths"][path].values():
                operation["security"] = [{"gateway": []}]
    return document


def _renamed(part: dict[str, Any], taken: dict[str, Any], domain: str) -> dict[str, Any]:
    schemas = part.get("components", {}).get("schemas", {})
    clashes = [name for name, schema in schemas.items() if name in taken and taken[name] != schema]
    text = json.dumps(part)
    for name in clashes:
        new = domain.capitalize() + name
        text = text.replace(f'"#/components/schemas/{name}"', f'"#/components/schemas/{new}"')
        text = text.replace(f'"{name}": {json.dumps(schemas[name])}', f'"{new}": {json.dumps(schemas[name])}')
    renamed: dict[str, Any] = json.loads(text)
    return renamed


if __name__ == "__main__":
    os.environ.setdefault("AWS_DEFAULT_REGION", "us-east-1")  # the handlers make clients; nothing is called
    Path(sys.argv[1]).write_text(json.dumps(merged(), indent=1, sort_keys=True) + "\n")
