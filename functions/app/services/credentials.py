"""Credentials of external providers: given once, kept sealed, opened only to seal them for a gateway."""

import logging
from collections.abc import Callable
from functools import lru_cache

from foundry_core.clock import now_ms
from foundry_core.errors import TransientError
from foundry_core.events import Event, new_event
from foundry_core.principal import Principal
from foundry_core.secrets import SecretUnreadable, seal_for, unseal
from foundry_core.transient import transient_errors

from functions.app.schemas import Credential
from functions.app.services.snapshot import Snapshot
from functions.app.store import credentials as store
from functions.app.wire import CredentialEntry

log = logging.getLogger(__name__)
Seal = Callable[[str, dict[str, str]], dict[str, str]]
Pairs = tuple[tuple[str, str], ...]

page_of = store.page_of


def put(project_id: str, name: str, secret: str, principal: Principal, seal: Seal) -> Credential:
    """Keep a new one, or put it in the place of the one there is."""
    credential = Credential(project_id=project_id, name=name, changed_by=principal.user_id, changed_at_ms=now_ms())
    sealed = seal(secret, binding(credential))
    store.put(credential, sealed, _event("stored", project_id, name, principal))
    return credential


def delete(project_id: str, name: str, principal: Principal) -> None:
    """Endpoints that use it answer no more, unless gateways have a file of its name."""
    store.delete(project_id, name, _event("deleted", project_id, name, principal))


def binding(credential: Credential) -> dict[str, str]:
    """What a sealed credential is bound to: it cannot be opened as another project's, or as another one."""
    return {"purpose": "provider_credential", "project_id": credential.project_id, "name": credential.name}


def sealed_for(token: str, snapshot: Snapshot) -> list[CredentialEntry]:
    """What the endpoints of the snapshot use, each sealed for the gateway with this token. Once KMS does not answer the
    others are empty: the config does not wait for them."""
    found, away = list[CredentialEntry](), False
    for ref, (credential, sealed) in snapshot.credentials.items():
        try:
            entry = "" if away else seal_for(token, ref, _secret(credential, sealed))
        except SecretUnreadable as error:  # of one project: the others' config does not wait for it
            log.error("credential %s: %s", ref, error.detail)
            continue
        except TransientError as error:
            log.warning("credential %s waits: %s", ref, error.__cause__)
            entry, away = "", True
        found.append(CredentialEntry(ref=ref, sealed=entry))
    return found


def _secret(credential: Credential, sealed: dict[str, str]) -> str:
    with transient_errors():
        return _opened(tuple(sealed.items()), tuple(binding(credential).items()))


@lru_cache(maxsize=1000)
def _opened(sealed: Pairs, context: Pairs) -> str:
    """Gateways ask for each new config at once: it is opened for the first, and lives as long as the function."""
    return unseal(dict(sealed), dict(context), patient=False)


def _event(what: str, project_id: str, name: str, principal: Principal) -> Event:
    data = {"project_id": project_id, "name": name, "by": principal.user_id}
    return new_event(f"foundry.credential.{what}.v1", source="app", subject=f"{project_id}.{name}", data=data)
