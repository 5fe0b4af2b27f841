"""A provider's key on its way from its owner to the gateway: on no disk in the clear."""

import json
from pathlib import Path
from typing import Any

SECRET, NEWER = "sk-provider-1234567890", "sk-provider-0987654321"


def in_force(root: Path, ref: str) -> str | None:
    """The sealed credential in the gateway's own copy of its config."""
    for copy in (root / "gateway").rglob("snapshot.json"):
        for entry in json.loads(copy.read_bytes()).get("credentials", []):
            if entry["ref"] == ref:
                return str(entry["sealed"])
    return None


def test_a_key_reaches_the_gateway_sealed_and_follows_its_owner(platform: Any, ok: Any, eventually: Any) -> None:
    api = platform.client()
    project = ok(api.post("/projects", json={"name": "provider"}))["id"]
    path, ref = f"/projects/{project}/credentials/main", f"{project}.main"
    endpoint = {"name": "claude", "provider": "anthropic", "url": "https://api.example.com", "model": "m"}
    ok(api.post(f"/projects/{project}/endpoints", json={**endpoint, "credential": "main"}))
    ok(api.put(path, json={"secret": SECRET}))
    first = eventually(lambda: in_force(platform.root, ref))
    ok(api.put(path, json={"secret": NEWER}))
    eventually(lambda: in_force(platform.root, ref) != first)
    platform.saved()
    written = [file for file in platform.root.rglob("*") if file.is_file()]
    assert written and not [file for file in written if holds_a_key(file)]
    ok(api.delete(path))
    eventually(lambda: in_force(platform.root, ref) is None)


def holds_a_key(file: Path) -> bool:
    content = file.read_bytes()
    return any(secret.encode() in content for secret in (SECRET, NEWER))
