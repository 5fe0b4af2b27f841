"""The policy core as one object: both forms of the gateway ask it, and only it, what to do with a request."""

import itertools
import re

from gateway.core import call as calls
from gateway.core import health, multipart
from gateway.core.authorise import authorise, find_endpoint
from gateway.core.call import Call
from gateway.core.choose import Chooser
from gateway.core.limit import Hold, LeaseBook, Scope
from gateway.core.meter import Row, tpot_ms
from gateway.core.multipart import Form, is_form
from gateway.core.problems import Rejected
from gateway.core.reserve import added_limit, cost_nanos, input_bound, output_bound, worst_cost_nanos
from gateway.core.retry import FAILURE_STATUS, may_retry
from gateway.core.snapshot import Deployment, Endpoint, Key, Snapshot
from gateway.core.usage import Usage
from gateway.core.wire import Limits

SOUND_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
NOTHING = Usage()


class Exchange:
    """One request on its way: what is known of it so far."""

    __slots__ = (
        "answered_by", "arrived_s", "body", "call", "deployment", "endpoint", "event_id", "first_s", "form", "holds",
        "key", "path", "plan", "request_id", "retries", "routed_s", "tried", "ts_ms", "wasted_tokens",
    )  # fmt: skip

    def __init__(self, event_id: str, path: str, arrived_s: float, ts_ms: int, client_request_id: str = "") -> None:
        self.event_id = event_id
        sound = client_request_id and SOUND_REQUEST_ID.fullmatch(client_request_id)
        self.request_id = client_request_id if sound else event_id
        self.path = path
        self.arrived_s = arrived_s
        self.ts_ms = ts_ms
        self.key: Key | None = None
        self.call: Call | None = None
        self.body = b""
        self.form: Form | None = None
        self.endpoint: Endpoint | None = None
        self.answered_by: Endpoint | None = None  # a fallback of the endpoint, or itself
        self.deployment: Deployment | None = None
        self.plan: tuple[Scope, ...] = ()
        self.holds: list[Hold] = []
        self.tried: tuple[Deployment, ...] = ()
        self.retries = 0
        self.routed_s = 0.0
        self.first_s = 0.0
        self.wasted_tokens = 0


class Policy:
    """All decisions about requests, with the state that they need. Time always comes from the caller."""

    def __init__(self, gateway_id: str, boot: str, open_bounds: dict[str, int] | None = None) -> None:
        self.gateway_id = gateway_id
        self.boot = boot
        self.snapshot: Snapshot | None = None
        self.book = LeaseBook(gateway_id, boot, open_bounds)
        self.chooser = Chooser()
        self._numbers = itertools.count(1)

    def swap(self, snapshot: Snapshot) -> None:
        """Put a new config in force; requests under way keep the one they began with."""
        self.snapshot = snapshot
        self.book.plans.clear()

    def new_event_id(self) -> str:
        return f"{self.boot}{next(self._numbers):x}"

    # --- authorise, limit, reserve ------------------------------------------------------------------------------

    def authorise(self, exchange: Exchange, token: bytes, client_ip: str) -> None:
        """Find the key. Raises Rejected."""
        if self.snapshot is None:
            raise Rejected("no_deployment", "The gateway has no configuration yet.", retry_after_s=1)
        exchange.key = authorise(self.snapshot, token, exchange.ts_ms, client_ip)

    def address(self, exchange: Exchange, body: bytes, content_type: bytes) -> None:
        """Read the body and find the endpoint that it names. Raises Rejected."""
        assert self.snapshot is not None and exchange.key is not None
        if is_form(content_type):
            exchange.form = multipart.parse(content_type, body)
            call = exchange.form.call
        else:
            call = calls.parse(body)
        exchange.call = call
        exchange.body = body
        exchange.endpoint = exchange.answered_by = find_endpoint(self.snapshot, exchange.key, call.model)

    def reserve(self, exchange: Exchange, now_ms: int) -> Scope | None:
        """Hold the worst case under every limit. Returns the scope that is short of it, if any."""
        plan = self._plan(exchange)
        if not plan:
            return None
        tokens, money = self._worst(exchange)
        wants = [(s, 1 if s.kind == "requests" else tokens if s.kind == "tokens" else money) for s in plan]
        held = self.book.reserve(wants, now_ms)
        if isinstance(held, Scope):
            return held
        exchange.plan, exchange.holds = plan, held
        return None

    def refusal(self, scope: Scope, now_ms: int) -> Rejected | None:
        """Why a short scope is final for now; None: the control plane has been asked and the request may wait."""
        if now_ms < scope.retry_at_ms:
            code = "insufficient_quota" if scope.kind == "money_nanos" else "rate_limit_exceeded"
            message = "" if code == "rate_limit_exceeded" else f"The budget of {scope.name} is used up."
            return Rejected(code, message, retry_after_s=max((scope.retry_at_ms - now_ms) // 1000, 1))
        if self.book.away:
            return Rejected("budget_unavailable", retry_after_s=1)
        return None

    def _plan(self, exchange: Exchange) -> tuple[Scope, ...]:
        key, endpoint = exchange.key, exchange.endpoint
        assert key is not None and endpoint is not None
        plan = self.book.plans.get((key.id, endpoint.name))
        if plan is None:
            plan = self.book.plans[key.id, endpoint.name] = tuple(self._scopes(key, endpoint))
        return plan

    def _scopes(self, key: Key, endpoint: Endpoint) -> list[Scope]:
        assert self.snapshot is not None
        of_project = self.snapshot.projects.get(key.project_id, Limits())
        found = []
        for name, limits in (
            (f"key:{key.id}", key.limits),
            (f"project:{key.project_id}", of_project),
            (f"endpoint:{endpoint.name}", endpoint.limits),
        ):
            for kind, limit in (
                ("requests", limits.requests_per_minute),
                ("tokens", limits.tokens_per_minute),
                ("money_nanos", limits.budget_nanos),
            ):
                if limit is not None:
                    found.append(self.book.scope(name, kind, limit))
        return found

    def _worst(self, exchange: Exchange) -> tuple[int, int]:
        call, endpoint = exchange.call, exchange.endpoint
        assert call is not None and endpoint is not None
        given = input_bound(exchange.body)
        tokens = money = 0
        for possible in endpoint.chain:
            made = output_bound(call, possible)
            tokens = max(tokens, given + made)
            money = max(money, worst_cost_nanos(possible.price, given, made))
        return tokens, money

    def release(self, exchange: Exchange) -> None:
        """Give back what was held for a request that was never sent."""
        for lease, amount in exchange.holds:
            lease.settle(amount, 0)
        exchange.plan, exchange.holds = (), []

    # --- choose, retry ------------------------------------------------------------------------------------------

    def choose(self, exchange: Exchange, now_s: float) -> Deployment | None:
        """The deployment for the next attempt: in the endpoint's tiers, then in its fallbacks'."""
        endpoint = exchange.endpoint
        assert endpoint is not None
        for possible in endpoint.chain:
            chosen = self.chooser.choose(possible, exchange.tried, now_s, exchange.body)
            if chosen is not None:
                exchange.answered_by = possible
                exchange.deployment = chosen
                exchange.tried = (*exchange.tried, chosen)
                chosen.outstanding += 1
                if not exchange.routed_s:
                    exchange.routed_s = now_s
                return chosen
        return None

    def outgoing_body(self, exchange: Exchange) -> bytes:
        """The body for the chosen deployment: the client's, but for model name, usage option and token limit."""
        call, deployment, endpoint = exchange.call, exchange.deployment, exchange.answered_by
        assert call is not None and deployment is not None and endpoint is not None
        if exchange.form is not None:
            return exchange.form.with_model(exchange.body, endpoint.adapters.get(call.model, deployment.model))
        model = calls.upstream_model(call, endpoint.adapters, deployment)
        cap = added_limit(call, endpoint) if exchange.holds and endpoint.price is not None else None
        if exchange.path not in calls.USAGE_OPTION_PATHS:
            cap = None
        return calls.rewrite(exchange.body, model, self.adds_usage(exchange), cap)

    def adds_usage(self, exchange: Exchange) -> bool:
        """Whether the usage event is ours: asked of the deployment, and taken out of the stream again."""
        call, deployment = exchange.call, exchange.deployment
        assert call is not None and deployment is not None
        known = deployment.stream_usage and exchange.path in calls.USAGE_OPTION_PATHS
        return bool(call.stream) and known and not calls.asks_usage(call)

    def attempt_failed(self, exchange: Exchange, status: int | None, now_s: float, sent: bool) -> bool:
        """Account for a failed attempt (``status`` None: no answer). True: choose again."""
        deployment, endpoint = exchange.deployment, exchange.endpoint
        assert deployment is not None and endpoint is not None
        if status is None or status in FAILURE_STATUS:
            health.note_failure(deployment, now_s)
        allowed = max(e.policy.retries for e in endpoint.chain)
        return may_retry(status, exchange.retries, allowed, sent)

    def retry(self, exchange: Exchange, now_s: float) -> Deployment | None:
        """The deployment for a further attempt; the failed one stays ``exchange.deployment`` when there is none."""
        failed = exchange.deployment
        chosen = self.choose(exchange, now_s)
        if chosen is not None:
            exchange.retries += 1
            if failed is not None:
                failed.outstanding -= 1
        return chosen

    def first_byte(self, exchange: Exchange, status: int, now_s: float) -> None:
        """The first byte of the body of an answer that is passed on."""
        exchange.first_s = now_s
        if exchange.deployment is not None and status not in FAILURE_STATUS:
            health.note_success(exchange.deployment, now_s - exchange.routed_s)

    # --- settle, meter ------------------------------------------------------------------------------------------

    def finish(
        self,
        exchange: Exchange,
        status: int,
        outcome: str,
        now_s: float,
        usage: Usage = NOTHING,
        usage_source: str = "none",
        error_code: str = "",
    ) -> Row:
        """Settle every hold on the real usage and write the row. To be called exactly once per exchange."""
        deployment, endpoint, key, call = exchange.deployment, exchange.answered_by, exchange.key, exchange.call
        cost = cost_nanos(endpoint.price, usage) if endpoint is not None else 0
        if deployment is not None:
            deployment.outstanding -= 1
        tokens = usage.input_tokens + usage.output_tokens
        for scope, (lease, amount) in zip(exchange.plan, exchange.holds, strict=True):
            kind = scope.kind
            lease.settle(amount, 1 if kind == "requests" else tokens if kind == "tokens" else cost)
        exchange.plan, exchange.holds = (), []
        e2e_ms = round((now_s - exchange.arrived_s) * 1000, 3)
        ttft_ms = round((exchange.first_s - exchange.arrived_s) * 1000, 3) if exchange.first_s else None
        return Row(
            exchange.event_id,
            exchange.ts_ms,
            self.gateway_id,
            key.project_id if key is not None else "",
            key.id if key is not None else "",
            exchange.endpoint.name if exchange.endpoint is not None else "",
            deployment.id if deployment is not None else "",
            deployment.model if deployment is not None else "",
            deployment.provider if deployment is not None else "",
            exchange.path,
            bool(call.stream) if call is not None else False,
            status,
            outcome,
            error_code,
            usage.input_tokens,
            usage.output_tokens,
            usage.cached_tokens,
            usage_source,
            ttft_ms,
            tpot_ms(ttft_ms, e2e_ms, usage.output_tokens),
            e2e_ms,
            round((exchange.routed_s - exchange.arrived_s) * 1000, 3) if exchange.routed_s else 0.0,
            cost,
            exchange.retries,
            exchange.wasted_tokens,
            deployment.source if deployment is not None else "live",
            exchange.request_id,
        )
