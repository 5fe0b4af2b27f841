"""Which platform this command talks to, and the tokens for it: one file, readable by its owner alone."""

import json
import os
from pathlib import Path

from pydantic import BaseModel, ValidationError

from foundry_cli.errors import CliError


class Profile(BaseModel):
    """``api_url`` of the platform, the Cognito client that signs in, and the tokens of the last sign-in."""

    api_url: str
    issuer: str
    client_id: str
    username: str
    # The Cognito API; derived from the issuer on AWS, the emulator's address offline.
    cognito_url: str
    access_token: str
    refresh_token: str
    expires_at_ms: int
    project_id: str | None = None


def path() -> Path:
    home = os.environ.get("FOUNDRY_HOME")
    return (Path(home) if home else Path.home() / ".config" / "foundry") / "profile.json"


def load() -> Profile:
    try:
        return Profile.model_validate_json(path().read_bytes())
    except FileNotFoundError as error:
        raise CliError("You are not signed in.", "foundry login") from error
    except (ValidationError, OSError) as error:
        raise CliError(f"The profile {path()} cannot be read.", "foundry login") from error


def save(profile: Profile) -> None:
    """Replace the file in one step, so that an interrupted write leaves the old one."""
    target = path()
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = target.with_suffix(".new")
    draft.touch(mode=0o600)
    draft.write_text(json.dumps(profile.model_dump(), indent=2))
    draft.replace(target)
