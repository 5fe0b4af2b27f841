"""Credentials of a project for external providers, sealed."""

from foundry_core.errors import NotFound
from foundry_core.events import Event
from foundry_core.table import conflicts, page, write

from functions.app.schemas import Credential
from functions.app.store import projects
from functions.app.store.table import CONFIG, CredentialItem, config_version, one_or_none, optimistic, outbox


def put(credential: Credential, sealed: dict[str, str], event: Event) -> None:
    """``NotFound`` when the project is gone."""

    def attempt() -> None:
        project = projects.item_of(credential.project_id)
        sk, data = _sk(credential.project_id, credential.name), credential.model_dump(mode="json")
        item = _find(credential.project_id, credential.name)
        create = [outbox(event)] if item else [outbox(event), CredentialItem(CONFIG, sk, sealed=sealed, data=data)]
        if item:
            item.sealed, item.data = sealed, data
        with conflicts("The credential was changed by another writer."):
            write(save=[item] if item else [], create=create, touch=[project], bump=[config_version()])

    optimistic(attempt)


def page_of(project_id: str, limit: int, cursor: str | None) -> tuple[list[Credential], str | None]:
    items, following = page(CredentialItem, CONFIG, prefix=_sk(project_id, ""), limit=limit, cursor=cursor)
    return [Credential(**item.data) for item in items], following


def delete(project_id: str, name: str, event: Event) -> None:
    def attempt() -> None:
        item = _find(project_id, name)
        if item is None:
            raise NotFound(f"There is no credential {name} in this project.", code="credential_not_found",
                           next_action="foundry credentials list")  # fmt: skip
        with conflicts("The credential was changed by another writer."):
            write(delete=[item], create=[outbox(event)], bump=[config_version()])

    optimistic(attempt)


def _find(project_id: str, name: str) -> CredentialItem | None:
    return one_or_none(CredentialItem, CONFIG, _sk(project_id, name))


def _sk(project_id: str, name: str) -> str:
    return f"CREDENTIAL#{project_id}#{name}"
