"""The config snapshot that gateways poll (docs/gateway.md): built once per version, whoever asks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from pydantic import TypeAdapter

from functions.app.fields import outside
from functions.app.policy import Share
from functions.app.schemas import Backend, Credential, Key, Limits, Project, PublishedEndpoint
from functions.app.store import config as store
from functions.app.store.config import Config, Version
from functions.app.wire import (
    BackendEntry,
    BlockingEntry,
    ConfigDocument,
    CredentialEntry,
    EndpointEntry,
    GuardrailEntry,
    KeyEntry,
    PolicyEntry,
    ProjectEntry,
    credential_ref,
)

_NONE = Limits()
_ENTRIES = TypeAdapter(list[CredentialEntry])


@dataclass(frozen=True)
class Snapshot:
    """``document`` is JSON, without credentials, which are for each gateway alone; those that endpoints use are in
    ``credentials`` by reference, sealed as they are stored. ``limits`` holds those of every scope that a lease can
    name. ``counters`` says for which scopes the counter has another name: an endpoint's goes by its id, so that a later
    one of the same name has spent nothing yet. ``owners`` are the projects of what can be woken."""

    document: bytes
    limits: dict[str, Limits]
    counters: dict[str, str]
    owners: dict[str, str]
    credentials: dict[str, tuple[Credential, dict[str, str]]]


version = store.version


@lru_cache(maxsize=1)
def of_version(version: Version) -> Snapshot:
    config = store.load(version)
    told = document(config)
    owners = _owners(told)
    counters = {f"endpoint:{endpoint.name}": f"endpoint:{endpoint.id}" for endpoint in config.endpoints}
    return Snapshot(
        told.model_dump_json(exclude={"credentials"}).encode(),
        _limits(config, owners),
        counters,
        owners,
        _used(config),
    )


def current() -> Snapshot:
    return of_version(version())


def with_credentials(document: bytes, credentials: list[CredentialEntry]) -> bytes:
    """The document for one gateway. The rest, which may be megabytes, is the same for all of them."""
    return b'%b,"credentials":%b}' % (document[:-1], _ENTRIES.dump_json(credentials))


def document(config: Config) -> ConfigDocument:
    return ConfigDocument(
        version=config.version.number,
        keys=[_key(key, sha256) for key, sha256 in config.keys],
        projects=[_project(p) for p in config.projects if p.limits != _NONE or p.capture_bodies],
        endpoints=[_endpoint(endpoint, config.endpoints) for endpoint in config.endpoints],
        blocking=[BlockingEntry(id=rule.id, kind=rule.kind, value=rule.value) for rule in config.blocking],
    )


def _used(config: Config) -> dict[str, tuple[Credential, dict[str, str]]]:
    used = set[str | None]()
    for endpoint in config.endpoints:
        used |= {backend.credential_ref for backend in _called(endpoint)}
        used |= {credential_ref(endpoint.project_id, guardrail.credential) for guardrail in endpoint.policy.guardrails}
    stored = ((credential_ref(one.project_id, one.name), one, sealed) for one, sealed in config.credentials)
    return {ref: (one, sealed) for ref, one, sealed in stored if ref and ref in used}


def _project(project: Project) -> ProjectEntry:
    return ProjectEntry(id=project.id, limits=project.limits, capture_bodies=project.capture_bodies)


def _key(key: Key, sha256: str) -> KeyEntry:
    return KeyEntry(
        id=key.id, sha256=sha256, project_id=key.project_id, expires_at_ms=key.expires_at_ms, models=key.models,
        cidrs=key.cidrs, limits=key.limits, coalesce_ms=key.coalesce_ms,
    )  # fmt: skip


def _problem(endpoint: PublishedEndpoint) -> str:
    """Why gateways may not call its provider: such addresses were stored before they were refused. Else empty."""
    try:
        for backend in endpoint.backends if endpoint.provider is not None else ():
            outside(backend.url)
    except ValueError as error:
        return f"the address of its provider {error}; delete the endpoint and make it again"
    return ""


def _called(endpoint: PublishedEndpoint) -> list[Backend]:
    """The backends that gateways are told of."""
    return [] if _problem(endpoint) else endpoint.backends


def _endpoint(endpoint: PublishedEndpoint, every: Sequence[PublishedEndpoint]) -> EndpointEntry:
    # Both together were stored before they were refused: adapters are served here only, so all requests are.
    traffic = [] if endpoint.adapters else endpoint.policy.traffic
    called, canaries = _called(endpoint), endpoint.policy.canary_weight if traffic else 0.0
    weight = (1 - canaries) / max(len(called), 1) if canaries else 1.0
    tier = [_backend(backend, backend.id, weight) for backend in called]
    for share in traffic:
        tier += _shared(endpoint, share, every)
    return EndpointEntry(
        name=endpoint.name, project_ids=[endpoint.project_id], tiers=[tier], price=endpoint.price,
        limits=endpoint.limits, max_output_tokens=endpoint.max_output_tokens, adapters=endpoint.adapters,
        policy=_policy(endpoint, every), problem=_problem(endpoint),
    )  # fmt: skip


def _backend(backend: Backend, id_: str, weight: float, shadow: bool = False, endpoint: str = "") -> BackendEntry:
    facts = backend.model_dump(include=set(BackendEntry.model_fields) - {"id"})
    return BackendEntry(id=id_, weight=weight, shadow=shadow, endpoint=endpoint, **facts)


def _shared(endpoint: PublishedEndpoint, share: Share, every: Sequence[PublishedEndpoint]) -> list[BackendEntry]:
    """The backends of another endpoint of the project, under ids of their own; none when it is gone or closed."""
    other = next((e for e in every if e.name == share.endpoint and e.project_id == endpoint.project_id), None)
    if other is None or other.name == endpoint.name:
        return []
    called = _called(other)
    weight, mark = share.weight / max(len(called), 1), "-shadow" if share.shadow else ""
    return [_backend(b, f"{b.id}/{endpoint.name}{mark}", weight, share.shadow, other.name) for b in called]


def _fallbacks(endpoint: PublishedEndpoint, every: Sequence[PublishedEndpoint]) -> list[str]:
    """Only those without fallbacks of their own: none leads in a circle, for which gateways refuse a whole config."""
    if not endpoint.policy.fallbacks:
        return []
    last = {e.name for e in every if e.project_id == endpoint.project_id and not e.policy.fallbacks}
    return [name for name in dict.fromkeys(endpoint.policy.fallbacks) if name in last]


def _policy(endpoint: PublishedEndpoint, every: Sequence[PublishedEndpoint]) -> PolicyEntry:
    guardrails = [
        GuardrailEntry(
            **guardrail.model_dump(exclude={"credential", "url"}), url=guardrail.scanner_url,
            credential_ref=credential_ref(endpoint.project_id, guardrail.credential),
        )
        for guardrail in endpoint.policy.guardrails
    ]  # fmt: skip
    usual = endpoint.policy.model_dump(exclude={"guardrails", "traffic", "fallbacks"})
    return PolicyEntry(**usual, guardrails=guardrails, fallbacks=_fallbacks(endpoint, every))


def _limits(config: Config, owners: Mapping[str, str]) -> dict[str, Limits]:
    return {
        **{f"key:{key.id}": key.limits for key, _ in config.keys},
        **{f"project:{project.id}": project.limits for project in config.projects},
        **{f"endpoint:{endpoint.name}": endpoint.limits for endpoint in config.endpoints},
        **dict.fromkeys(owners, _NONE),
    }


def _owners(told: ConfigDocument) -> dict[str, str]:
    """The project of each deployment; canaries among them, whose requests wake the one that they are a share of."""
    return {
        f"deployment:{backend.id}": entry.project_ids[0]
        for entry in told.endpoints
        for tier in entry.tiers
        for backend in tier
        if not backend.shadow
    }
