"""A signed-in profile in a temporary home, and a platform made of canned answers."""

from pathlib import Path

import pytest
from foundry_cli import profile
from foundry_cli.profile import Profile

FAR_FUTURE_MS = 4_000_000_000_000


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def signed_in(home: Path) -> Profile:
    user = Profile(
        api_url="http://127.0.0.1:9",
        issuer="http://127.0.0.1:9/pool",
        client_id="client",
        username="ada",
        cognito_url="http://127.0.0.1:9/",
        access_token="token",
        refresh_token="refresh",
        expires_at_ms=FAR_FUTURE_MS,
    )
    profile.save(user)
    return user
