"""Keys of providers in files of a mounted secret."""

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def gateway_settings(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "openai").write_text("first\n")
    return {"credentials_dir": tmp_path / "keys"}


async def test_a_rotated_key_is_used_a_second_later(stack: Any, tmp_path: Path) -> None:
    endpoint = stack.config["endpoints"][0]
    for tier in endpoint["tiers"]:
        for deployment in tier:
            deployment["credential_ref"] = "openai"
    await stack.reconfigure(endpoints=stack.config["endpoints"])
    for key in ("first", "second"):
        (tmp_path / "keys" / "openai").write_text(key)
        if stack.hot is not None:
            stack.hot.tend()
        assert (await stack.chat()).status_code == 200
        seen = [request for engine in stack.engines for request in engine.requests][-1]
        assert seen.headers["authorization"] == f"Bearer {key}"
        for engine in stack.engines:
            engine.requests.clear()
