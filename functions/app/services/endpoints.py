"""Endpoints: published by the deploy flow, withdrawn by the delete flow; made by hand for external providers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from foundry_core.clock import now_ms
from foundry_core.errors import Conflict, Invalid
from foundry_core.events import Event, new_event
from foundry_core.ids import new_id
from foundry_core.principal import Principal

from functions.app.fields import engine_address
from functions.app.policy import Policy
from functions.app.schemas import (
    Backend,
    Endpoint,
    EndpointChange,
    EndpointCreate,
    Limits,
    Price,
    PublishedEndpoint,
)
from functions.app.services.projects import merged
from functions.app.store import endpoints as store
from functions.app.store.table import optimistic
from functions.app.wire import credential_ref

Pairs = Sequence[tuple[PublishedEndpoint, PublishedEndpoint]]


class NameTaken(Conflict):
    """Another deployment answers for this name."""

    default_code = "name_taken"


def get(project_id: str, name: str) -> Endpoint:
    return store.load(project_id, name).public()


def page_of(project_id: str, limit: int, cursor: str | None) -> tuple[list[Endpoint], str | None]:
    items, following = store.page_of(project_id, limit, cursor)
    return [item.public() for item in items], following


def change(
    project_id: str,
    name: str,
    request: EndpointChange,
    principal: Principal,
    check: Callable[[Endpoint], None] = lambda _: None,
) -> Endpoint:
    """``check`` sees the endpoint as it is and may refuse (If-Match)."""
    store.load(project_id, name)

    def apply(endpoint: PublishedEndpoint) -> tuple[PublishedEndpoint, Event] | None:
        check(endpoint.public())
        if not request.model_fields_set:
            return None
        after = changed(endpoint, request)
        return after, _event("changed", after, principal.user_id)

    return store.update(name, apply).public()


def changed(endpoint: PublishedEndpoint, request: EndpointChange) -> PublishedEndpoint:
    """Fields that were given replace those of the endpoint."""
    fields: dict[str, Any] = {}
    if "limits" in request.model_fields_set:
        fields["limits"] = merged(endpoint.limits, request.limits)
    if "policy" in request.model_fields_set:
        given = request.policy.model_dump(exclude_unset=True) if request.policy else Policy().model_dump()
        fields["policy"] = Policy(**{**endpoint.policy.model_dump(), **given})
    if "adapters" in request.model_fields_set:
        fields["adapters"] = request.adapters or {}
        _refuse_taken(fields["adapters"].keys() - endpoint.adapters.keys())
    after = endpoint.model_copy(update=fields)
    pairs = _pairs(after) if fields else []
    if fields.keys() & {"limits", "policy"}:
        _refuse_bypass(pairs)
    if fields.keys() & {"adapters", "policy"}:
        _refuse_shared_adapters(after)
        _refuse_unwoken(after, pairs)
    return after


def _refuse_shared_adapters(wanted: PublishedEndpoint) -> None:
    """The engines of another endpoint do not serve the adapters of this one. ``Invalid``."""
    if wanted.adapters and wanted.policy.traffic:
        raise Invalid(
            f"{wanted.name} cannot have adapters and share its traffic: engines of others do not serve them.",
            code="adapters_shared", next_action="Take the adapters away, or traffic out of the policy.",
        )  # fmt: skip


def _refuse_unwoken(wanted: PublishedEndpoint, pairs: Pairs) -> None:
    """What falls asleep by itself is woken by requests. ``Invalid``."""
    if wanted.policy.sleep_after_s and not wanted.policy.hold_s:
        raise Invalid(
            f"{wanted.name} cannot fall asleep by itself while its requests wake nothing.", code="never_woken",
            next_action="Set hold_s too, or sleep_after_s to 0.",
        )  # fmt: skip
    for other, asked in pairs:
        if other.policy.sleep_after_s and other.name in asked.policy.fallbacks:
            raise Invalid(
                f"{other.name} cannot fall asleep by itself: it is a fallback of {asked.name}, whose requests do not "
                "wake it.", code="never_woken",
                next_action=f"Set its sleep_after_s to 0, or take it out of the fallbacks of {asked.name}.",
            )  # fmt: skip


def _pairs(wanted: PublishedEndpoint) -> Pairs:
    """Each other endpoint of the project with this one, and this one with it."""
    others = [known for known in store.all_of(wanted.project_id) if known.name != wanted.name]
    return [pair for known in others for pair in ((known, wanted), (wanted, known))]


def _refuse_bypass(pairs: Pairs) -> None:
    """No fallback, canary or shadow may have limits or guardrails that requests to the endpoint in front of it never
    met. ``Invalid``."""
    for other, asked in pairs:
        if other.name in asked.policy.others and not _stands_in(other, asked):
            raise _bypassed(other.name, asked)


def _stands_in(other: PublishedEndpoint, asked: PublishedEndpoint) -> bool:
    """Whether gateways let it answer for ``asked``: the rule of ``gateway.core.snapshot``, held to the same cases
    (``tests/stand_in_cases.json``)."""
    guardrails = other.policy.guardrails
    return other.limits == Limits() and (not guardrails or guardrails == asked.policy.guardrails)


def _bypassed(other: str, asked: PublishedEndpoint) -> Invalid:
    named = other in asked.policy.fallbacks
    code, what = ("fallback_guarded", "fallbacks") if named else ("traffic_guarded", "traffic")
    return Invalid(
        f"{other} cannot be in the {what} of {asked.name} and have limits or guardrails of its own: requests to "
        f"{asked.name} would pass them by.", code=code,
        next_action=f"Take {other} out of the {what} of {asked.name}, or its limits and guardrails away.",
    )  # fmt: skip


def _refuse_taken(names: Iterable[str]) -> None:
    for name in sorted(names):
        if store.taken(name):
            raise NameTaken(f"There is an endpoint or adapter {name} already.", next_action="Choose another name.")


def create(project_id: str, request: EndpointCreate, principal: Principal) -> Endpoint:
    """An endpoint that an external provider answers. ``NameTaken`` when its name or an adapter's is in use;
    ``Invalid`` for a fallback or share with limits or guardrails of its own, and for adapters with shared traffic."""
    if request.name in request.adapters:
        raise NameTaken(f"An adapter of {request.name} has its name.", next_action="Choose another name.")
    _refuse_taken({request.name, *request.adapters})
    backend_id = new_id("ext")
    backend = Backend(
        id=backend_id, deployment_id=backend_id, url=request.url, model=request.model, provider=request.provider,
        credential_ref=credential_ref(project_id, request.credential),
    )  # fmt: skip
    endpoint = PublishedEndpoint(
        id=new_id("ep"), name=request.name, project_id=project_id, model_id=None, deployment_ids=[backend_id],
        provider=request.provider, price=Price(**request.price.model_dump()),
        limits=request.limits, policy=request.policy, adapters=request.adapters, created_at_ms=now_ms(),
        max_output_tokens=request.max_output_tokens, backends=[backend],
    )  # fmt: skip
    pairs = _pairs(endpoint)
    _refuse_bypass(pairs)
    _refuse_shared_adapters(endpoint)
    _refuse_unwoken(endpoint, pairs)
    store.insert(endpoint, backend_id, _event("published", endpoint, principal.user_id))
    return endpoint.public()


def delete(project_id: str, name: str, principal: Principal) -> None:
    """Only one that an external provider answers; ``Conflict`` otherwise."""
    endpoint = store.load(project_id, name)
    if endpoint.provider is None:
        raise Conflict(f"The endpoint {name} is served by a deployment.", code="endpoint_in_use",
                       next_action="Delete the deployment.")  # fmt: skip
    store.delete(name, endpoint.deployment_ids[0], _event("withdrawn", endpoint, principal.user_id))


def publish(deployment: Mapping[str, Any], upstreams: Mapping[str, Any]) -> PublishedEndpoint:
    """Publish what the steps ``admit`` and ``wait_ready`` of the flow found; again changes nothing or the addresses.
    ``NameTaken`` when the name belongs to another deployment."""
    wanted = _endpoint(deployment, upstreams)
    return optimistic(lambda: _publish(wanted, str(deployment["deployment_id"])))


def _publish(wanted: PublishedEndpoint, deployment_id: str) -> PublishedEndpoint:
    if store.find(wanted.name) is None:
        _refuse_taken([wanted.name])
        store.insert(wanted, deployment_id, _event("published", wanted, deployment_id))
        return wanted
    return store.update(wanted.name, lambda known: _renewed(known, wanted, deployment_id))


def _renewed(
    known: PublishedEndpoint, wanted: PublishedEndpoint, deployment_id: str
) -> tuple[PublishedEndpoint, Event] | None:
    if known.deployment_ids != [deployment_id]:
        raise NameTaken(f"The endpoint {wanted.name} is served by another deployment.",
                        next_action="Deploy under another name.")  # fmt: skip
    kept = {name: getattr(known, name) for name in ("id", "created_at_ms", "limits", "policy", "adapters")}
    same = wanted.model_copy(update=kept)
    return None if same == known else (same, _event("published", same, deployment_id))


def _endpoint(deployment: Mapping[str, Any], upstreams: Mapping[str, Any]) -> PublishedEndpoint:
    facts = {**deployment, **upstreams}
    return PublishedEndpoint(
        id=new_id("ep"), name=facts["endpoint_name"], project_id=facts["project_id"], model_id=facts["model_id"],
        deployment_ids=[facts["deployment_id"]], price=facts.get("price") or {}, created_at_ms=now_ms(),
        max_output_tokens=facts.get("max_output_tokens"),
        backends=_backends(facts["deployment_id"], facts["upstreams"], facts),
    )  # fmt: skip


def _backends(deployment_id: str, urls: Sequence[str], facts: Mapping[str, Any]) -> list[Backend]:
    """One per address; gateways tell several of the same deployment apart by ``<deployment id>/<number>``."""
    model, source = facts.get("model") or facts["endpoint_name"], facts.get("source") or "live"
    ids = [deployment_id] if len(urls) == 1 else [f"{deployment_id}/{number}" for number in range(len(urls))]
    return [
        Backend(id=id_, deployment_id=deployment_id, url=_address(url), model=model, source=source)
        for id_, url in zip(ids, urls, strict=True)
    ]


def _address(url: str) -> str:
    """A cluster may annotate what it likes. ``Invalid``."""
    try:
        return engine_address(url)
    except ValueError as error:
        raise Invalid(f"The cluster says that the engine answers at {url[:200]!r}: {error}.", code="address_invalid",
                      next_action="Correct the Service in the cluster, then retry the run.") from error  # fmt: skip


def sleep(deployment_id: str) -> None:
    """Have gateways send nothing to a deployment, whose next publication wakes it; nothing to do when it has none."""
    name = store.name_of(deployment_id)
    if name is None:
        return

    def apply(endpoint: PublishedEndpoint) -> tuple[PublishedEndpoint, Event] | None:
        backends = [backend.model_copy(update={"asleep": True}) for backend in endpoint.backends]
        asleep = endpoint.model_copy(update={"backends": backends})
        return None if asleep == endpoint else (asleep, _event("asleep", asleep, deployment_id))

    store.update(name, apply)


def unpublish(deployment_id: str) -> None:
    """Withdraw the endpoint of a deployment; nothing to do when there is none."""

    def attempt() -> None:
        name = store.name_of(deployment_id)
        endpoint = store.find(name) if name else None
        if endpoint is not None:
            store.delete(endpoint.name, deployment_id, _event("withdrawn", endpoint, deployment_id))

    optimistic(attempt)


def _event(what: str, endpoint: PublishedEndpoint, by: str) -> Event:
    """``by``: the deployment that it serves, or the person who changed it."""
    data = {"endpoint_id": endpoint.id, "name": endpoint.name, "project_id": endpoint.project_id,
            "deployment_ids": endpoint.deployment_ids, "by": by}  # fmt: skip
    return new_event(f"foundry.endpoint.{what}.v1", source="app", subject=endpoint.id, data=data)
