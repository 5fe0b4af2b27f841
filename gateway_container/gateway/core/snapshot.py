"""The config snapshot in force: checked as a whole, indexed for the hot path, swapped atomically."""

import math
import re
from binascii import unhexlify
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec

from gateway.core import wire
from gateway.core.stage import StageMaker, TranslationMaker

if TYPE_CHECKING:
    from gateway.core.guard.guard import Guard

MAX_COALESCE_MS: Final = 1000
NO_LIMITS: Final = wire.Limits()
Network = IPv4Network | IPv6Network
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
ID = re.compile(r"[A-Za-z0-9._:/@+-]{1,200}")


class BrokenSnapshot(Exception):
    """The snapshot contradicts itself or does not parse; the last good one keeps serving."""


class Key:
    """An API key; found by the SHA-256 of what the client sent."""

    __slots__ = (
        "coalesce_ms", "digest", "expires_at_ms", "guarded", "id", "limits", "models", "networks", "project_id",
    )  # fmt: skip

    def __init__(self, key: wire.Key) -> None:
        self.id = key.id
        self.digest = _digest(key)
        self.project_id = key.project_id
        self.expires_at_ms = key.expires_at_ms
        self.models = None if key.models is None else frozenset(key.models)
        self.networks = None if key.cidrs is None else tuple(ip_network(cidr, strict=False) for cidr in key.cidrs)
        self.limits = key.limits
        self.coalesce_ms = key.coalesce_ms
        _refuse_wait(f"key {key.id}", key.coalesce_ms)
        self.guarded = self.expires_at_ms is not None or self.networks is not None  # more to check than the digest


class Deployment:
    """A place that answers for an endpoint, with what the gateway has seen of it."""

    __slots__ = (
        "asleep",
        "authority",
        "credential_ref",
        "ejected_until_s",
        "failures",
        "host",
        "id",
        "latency_s",
        "limit_name",
        "model",
        "model_json",
        "open_until_s",
        "outstanding",
        "port",
        "prefix",
        "probing",
        "provider",
        "requests",
        "shadow",
        "silences",
        "source",
        "stream_usage",
        "tls", "translations", "weight", "wire",
    )  # fmt: skip

    def __init__(self, deployment: wire.Deployment) -> None:
        url = urlsplit(deployment.url)
        if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
            raise ValueError(f"deployment {deployment.id}: {deployment.url!r} is not an http(s) URL")
        self.wire = deployment
        self.id = deployment.id
        self.tls = url.scheme == "https"
        self.host = url.hostname
        self.port = url.port or (443 if self.tls else 80)
        self.authority = url.netloc.rpartition("@")[2].encode("ascii")
        self.prefix = url.path.rstrip("/").removesuffix("/v1").encode("ascii")
        self.model = deployment.model
        newest = deployment.provider == "azure" or self.host == "api.openai.com"
        self.limit_name = "max_completion_tokens" if newest else "max_tokens"  # what chats call their token limit
        self.model_json = msgspec.Raw(msgspec.json.encode(deployment.model))
        self.weight = deployment.weight
        self.provider = deployment.provider
        self.credential_ref = deployment.credential_ref
        # Mistral refuses the option, and reports usage without it.
        self.stream_usage = deployment.stream_usage and deployment.provider != "mistral"
        self.source = deployment.source
        self.asleep = deployment.asleep
        self.translations: dict[str, TranslationMaker] = {}  # by path; compiled by the policy
        self.shadow = deployment.shadow
        self.outstanding = 0
        self.requests = 0.0  # of late, and how many of them failed: see health
        self.failures = 0.0
        self.silences = 0  # in a row
        self.probing = False
        self.latency_s = 0.0
        self.open_until_s = 0.0
        self.ejected_until_s = 0.0

    def url(self, path: str) -> str:
        return f"{'https' if self.tls else 'http'}://{self.authority.decode()}{path}"


class Endpoint:
    """A name that clients call, with its deployments by tier."""

    __slots__ = (
        "adapters", "captured", "chain", "guard", "input_nanos", "limits", "max_output_tokens", "name", "output_nanos",
        "policy", "price", "problem", "project_ids", "routing", "shadows", "sleepers", "stages", "tiers",
    )  # fmt: skip

    def __init__(self, endpoint: wire.Endpoint, deployments: dict[str, Deployment], problem: str) -> None:
        self.name = endpoint.name
        self.project_ids = None if endpoint.project_ids is None else frozenset(endpoint.project_ids)
        tiers = [[deployments[d.id] for d in tier] for tier in endpoint.tiers]
        self.tiers = tuple(tuple(d for d in tier if not d.shadow and d.weight > 0) for tier in tiers)
        self.shadows = tuple(d for tier in tiers for d in tier if d.shadow)
        self.price = endpoint.price
        self.input_nanos = endpoint.price.input_nanos_per_token if endpoint.price else 0
        self.output_nanos = endpoint.price.output_nanos_per_token if endpoint.price else 0
        self.limits = endpoint.limits
        self.max_output_tokens = endpoint.max_output_tokens
        self.adapters = endpoint.adapters
        self.policy = endpoint.policy
        self.routing = endpoint.policy.routing
        _refuse_wait(f"endpoint {endpoint.name}", endpoint.policy.coalesce_ms)
        self.guard: Guard | None = None
        self.problem = problem  # why it cannot be used as configured: then nothing passes, here and nowhere else
        if endpoint.policy.guardrails:
            self._compile_guardrails(endpoint.policy.guardrails)
        self.captured: frozenset[str] = frozenset()  # projects whose bodies are kept
        self.stages: tuple[StageMaker, ...] = ()  # compiled by the policy when the snapshot is put in force
        self.chain: tuple[Endpoint, ...] = (self,)  # itself, then its fallbacks in order
        self.sleepers: tuple[Deployment, ...] = ()  # that its requests wake

    def _compile_guardrails(self, guardrails: Sequence[wire.Guardrail]) -> None:
        from gateway.core.guard.guard import Guard  # most gateways have none, and the pattern engine has its weight

        try:
            self.guard = Guard(guardrails)
        except (ValueError, RecursionError) as error:
            self.problem = str(error)


def _refuse_wait(whose: str, coalesce_ms: float | None) -> None:
    if coalesce_ms is not None and not 0 <= coalesce_ms <= MAX_COALESCE_MS:
        raise ValueError(f"{whose}: coalesce_ms {coalesce_ms} is not between 0 and {MAX_COALESCE_MS}")


class Snapshot:
    """One version of the config. ``deployments`` outlive a swap as long as their own config is unchanged."""

    __slots__ = (
        "agents",
        "client_rate",
        "countries",
        "credentials",
        "deployments",
        "endpoints",
        "holds",
        "keys",
        "networks",
        "projects",
        "rules",
        "version",
    )

    def __init__(self, config: wire.Snapshot, before: "Snapshot | None" = None) -> None:
        self.version = config.version
        self.keys = {key.digest: key for key in map(Key, config.keys)}
        self.projects = {project.id: project.limits for project in config.projects}
        known = before.deployments if before is not None else {}
        self.deployments: dict[str, Deployment] = {}
        problems = {e.name: _deploy(e, self.deployments, known) for e in config.endpoints}
        self.endpoints: dict[str, Endpoint] = {}
        captured = frozenset(_named_soundly(project.id) for project in config.projects if project.capture_bodies)
        for endpoint in config.endpoints:
            compiled = Endpoint(endpoint, self.deployments, problems[endpoint.name] or endpoint.problem)
            compiled.captured = captured if compiled.project_ids is None else captured & compiled.project_ids
            for name in (endpoint.name, *endpoint.adapters):
                if name in self.endpoints:
                    raise ValueError(f"endpoint {name!r} is there twice")
                self.endpoints[name] = compiled
        self.holds = any(endpoint.policy.hold_s > 0 for endpoint in config.endpoints)
        self.networks = tuple(ip_network(b.value, strict=False) for b in config.blocking if b.kind == "cidr")
        self.agents = tuple(b.value.lower() for b in config.blocking if b.kind == "user_agent")
        self.countries = frozenset(_country(b.value) for b in config.blocking if b.kind == "country")
        self.client_rate = min((_rate(b.value) for b in config.blocking if b.kind == "rate"), default=None)
        self.rules = tuple(config.blocking)
        self.credentials = {credential.ref: credential.sealed for credential in config.credentials}
        _refuse_cycles(config.endpoints)
        for endpoint in config.endpoints:
            self._keep_bounds(self.endpoints[endpoint.name])
            self.endpoints[endpoint.name].chain = tuple(self._chain(endpoint.name))

    def _keep_bounds(self, asked: Endpoint) -> None:
        """Canaries and shadows whose own endpoint may not stand in get nothing."""
        asked.tiers = tuple(tuple(d for d in tier if self._shares(d, asked)) for tier in asked.tiers)
        asked.shadows = tuple(d for d in asked.shadows if self._shares(d, asked))
        if asked.policy.hold_s > 0:
            asked.sleepers = tuple(d for tier in asked.tiers for d in tier if d.asleep)

    def _shares(self, deployment: Deployment, asked: Endpoint) -> bool:
        owner = self.endpoints.get(deployment.wire.endpoint)
        return not deployment.wire.endpoint or (owner is not None and _stands_in(owner, asked))

    def _chain(self, name: str) -> list[Endpoint]:
        """Itself, then its fallbacks, but for those that may not stand in: they are passed over for their own."""
        found = [self.endpoints[name]]
        for endpoint in found:
            found += [e for f in endpoint.policy.fallbacks if (e := self.endpoints[f]) not in found]
        return found[:1] + [endpoint for endpoint in found[1:] if _stands_in(endpoint, found[0])]


def _stands_in(endpoint: Endpoint, asked: Endpoint) -> bool:
    """Whether it may answer for ``asked``: requests met the limits and guardrails of that one, and meet no others."""
    guardrails = endpoint.policy.guardrails
    unmet = endpoint.limits != NO_LIMITS or (bool(guardrails) and guardrails != asked.policy.guardrails)
    return not endpoint.problem and not unmet


def load(data: bytes, before: Snapshot | None = None) -> Snapshot:
    """Check and index a snapshot document. Raises BrokenSnapshot with the reason."""
    try:
        config = msgspec.json.decode(data, type=wire.Snapshot)
        return Snapshot(config, before)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BrokenSnapshot(str(error)) from None


def _digest(key: wire.Key) -> bytes:
    digest = unhexlify(key.sha256)
    if len(digest) != 32:
        raise ValueError(f"key {key.id}: sha256 is not 64 hex digits")
    return digest


def _named_soundly(project_id: str) -> str:
    if not FILE_NAME.fullmatch(project_id):
        raise ValueError(f"bodies of project {project_id!r} cannot be captured: its id is no file name")
    return project_id


def _country(code: str) -> str:
    if len(code) != 2 or not code.isascii() or not code.isalpha():
        raise ValueError(f"country {code!r} is not two letters (ISO 3166-1)")
    return code.upper()


def _rate(per_minute: str) -> int:
    if not per_minute.isascii() or not per_minute.isdigit() or len(per_minute) > 9:
        raise ValueError(f"rate {per_minute!r} is not a number of requests per minute")
    return int(per_minute)


def _deploy(endpoint: wire.Endpoint, found: dict[str, Deployment], before: dict[str, Deployment]) -> str:
    """Add the deployments of one endpoint to ``found``. Returns why it cannot be used, "" when it can: a project that
    contradicts itself must not keep the others from their new config."""
    problem = ""
    for config in (d for tier in endpoint.tiers for d in tier):
        if not math.isfinite(config.weight) or config.weight < 0:
            raise ValueError(f"deployment {config.id}: weight {config.weight} is not a number ≥ 0")
        known = found.get(config.id) or before.get(config.id)
        if known is None or known.wire != config:
            if config.id in found:
                problem = f"deployment {config.id} is there twice with different settings"
                continue
            known = Deployment(config)
        found[config.id] = known
    return problem


def _refuse_cycles(endpoints: Iterable[wire.Endpoint]) -> None:
    graph = {endpoint.name: endpoint.policy.fallbacks for endpoint in endpoints}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            raise ValueError(f"fallbacks go in a circle: {' -> '.join((*path, name))}")
        if name not in graph:
            raise ValueError(f"fallback {name!r} is not an endpoint")
        if name not in done:
            for following in graph[name]:
                visit(following, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())
