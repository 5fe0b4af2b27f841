"""The policy core as one object: both forms of the gateway ask it, and only it, what to do with a request."""

from collections.abc import Callable
from typing import Final

from gateway.core import call as calls
from gateway.core import health, multipart
from gateway.core.authorise import authorise, find_endpoint, find_key
from gateway.core.blocking import Blocking
from gateway.core.choose import Chooser
from gateway.core.dialects.translate import translations
from gateway.core.exchange import Exchange
from gateway.core.lease import MOST, Amounts, Plan, Scope, part
from gateway.core.limit import LeaseBook
from gateway.core.problems import Rejected, closed, is_error
from gateway.core.reserve import added_limit, cost_nanos, input_bound, output_bound, refuse_beyond, refuse_for_now
from gateway.core.retry import FAILURE_STATUS, may_retry
from gateway.core.shapes import Row
from gateway.core.snapshot import Deployment, Endpoint, Key, Snapshot
from gateway.core.stage import StageMaker
from gateway.core.usage import NOTHING, Usage
from gateway.core.wake import order_wake
from gateway.core.wire import Limits

BRIDGED_MS: Final = 2_000  # while the control plane is away for less than this, requests wait for a lease
JSON: Final = b"application/json"
FREE: Final = ("cached", "shadow")  # outcomes that cost nobody anything; the row says what was delivered


class Policy:
    """All decisions about requests, with the state that they need. Time always comes from the caller."""

    def __init__(self, gateway_id: str, boot: str, open_bounds: dict[str, int] | None = None) -> None:
        self.gateway_id = gateway_id
        self.boot = boot
        self.snapshot: Snapshot | None = None
        self.book = LeaseBook(gateway_id, boot, open_bounds)
        self.chooser = Chooser()
        self.stage_kinds: list[Callable[[Endpoint], StageMaker | None]] = []  # in the order in which requests pass
        self.blocking = Blocking()
        self._number = 0

    def swap(self, snapshot: Snapshot) -> None:
        """Put a new config in force; requests under way keep the one they began with."""
        for deployment in snapshot.deployments.values():
            deployment.translations = translations(deployment.provider)
        for endpoint in snapshot.endpoints.values():
            makers = [kind(endpoint) for kind in self.stage_kinds]
            endpoint.stages = tuple(make for make in makers if make is not None)
        self.snapshot = snapshot
        self.book.plans.clear()

    def new_event_id(self) -> str:
        self._number += 1
        return self.boot + str(self._number)

    # --- authorise, limit, reserve ------------------------------------------------------------------------------

    def authorise(self, exchange: Exchange, token: bytes, client_ip: str) -> None:
        """Find the key. Raises Rejected."""
        if self.snapshot is None:
            raise Rejected("no_deployment", "The gateway has no configuration yet.", retry_after_s=1)
        exchange.key = authorise(self.snapshot, token, exchange.ts_ms, client_ip)

    def admit(self, exchange: Exchange, body: bytes, content_type: bytes, now_ms: int) -> Scope | None:
        """Read the body, find the endpoint, hold the worst case. Returns the scope that is short. Raises Rejected."""
        if content_type == JSON or not multipart.is_form(content_type):
            call = calls.parse(body)
        else:
            if exchange.form is None:
                exchange.form = multipart.parse(content_type, body)
            call = exchange.form.call
        exchange.call = call
        exchange.body = body
        key = exchange.key
        assert key is not None
        plans = self.book.plans.get(key)
        known = (plans.get(call.model) if plans is not None else None) or self._admission(key, call.model)
        exchange.endpoint = exchange.answered_by = known[0]
        exchange.plan = known[1]
        return self.reserve(exchange, now_ms) if known[1] else None

    def reserve(self, exchange: Exchange, now_ms: int) -> Scope | None:
        """Hold the worst case under every limit. Returns the scope that is short of it, if any."""
        amounts = self._worst(exchange)
        leases = self.book.reserve(exchange.plan, amounts, now_ms)
        if isinstance(leases, Scope):
            refuse_beyond(leases, part(amounts, leases.index), exchange)
            return leases
        exchange.leases, exchange.amounts = leases, amounts
        return None

    def refuse_short(self, scope: Scope, now_ms: int) -> None:
        """Raises Rejected when a short scope is final for now; else the control plane was asked and it may wait."""
        refuse_for_now(scope, now_ms)
        if self.book.away and now_ms - self.book.away_since_ms > BRIDGED_MS:
            raise Rejected("budget_unavailable", retry_after_s=1)

    def _admission(self, key: Key, model: str) -> tuple[Endpoint, Plan]:
        """The endpoint and every limit that applies; remembered until the next config. Raises Rejected.

        The key of a request that began before that config counts as what it is now.
        """
        assert self.snapshot is not None
        present = self.snapshot.keys.get(key.digest)
        if present is None:
            raise Rejected("invalid_api_key")
        endpoint = find_endpoint(self.snapshot, present, model)
        known = endpoint, tuple(self._scopes(present, endpoint))
        self.book.plans.setdefault(key, {})[model] = known
        return known

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

    def _worst(self, exchange: Exchange) -> Amounts:
        call, endpoint = exchange.call, exchange.endpoint
        assert call is not None and endpoint is not None
        given = exchange.given = input_bound(call, exchange.body, exchange.path) + exchange.more_bytes
        made = output_bound(call, exchange.path, endpoint)
        if len(endpoint.chain) == 1:
            return 1, given + made, given * endpoint.input_nanos + made * endpoint.output_nanos
        bounds = [(output_bound(call, exchange.path, possible), possible) for possible in endpoint.chain]
        tokens = max(given + made for made, _ in bounds)
        return 1, tokens, max(given * e.input_nanos + made * e.output_nanos for made, e in bounds)

    def release(self, exchange: Exchange) -> None:
        """Give back what was held for a request that was never sent."""
        if exchange.leases:
            self._settle(exchange, (0, 0, 0))

    def _settle(self, exchange: Exchange, used: Amounts) -> None:
        amounts, plan = exchange.amounts, exchange.plan
        for place, lease in enumerate(exchange.leases):
            index = plan[place].index
            lease.settle(part(amounts, index), part(used, index))
        exchange.leases = []

    # --- choose, retry ------------------------------------------------------------------------------------------

    def choose(self, exchange: Exchange, now_s: float) -> Deployment | None:
        """The deployment for the next attempt: in the endpoint's tiers, then in its fallbacks'."""
        if not exchange.routed_s:
            exchange.routed_s = now_s
        chosen = self.chooser.choose_for(exchange, now_s)
        if chosen is not None:
            for asleep in exchange.endpoint.sleepers if exchange.endpoint is not None else ():
                order_wake(self.book, asleep, exchange.ts_ms)  # others answer meanwhile
            exchange.deployment = chosen
            exchange.tried += (chosen,)
            chosen.outstanding += 1
            if exchange.trace is not None:
                exchange.trace.begin_attempt(chosen, now_s)
        return chosen

    def readmit(self, exchange: Exchange, now_ms: int) -> None:
        """Decide again under another config, as of a new request: nothing is held afterwards. Raises Rejected."""
        snapshot, before, call = self.snapshot, exchange.key, exchange.call
        assert snapshot is not None and before is not None and call is not None
        self.release(exchange)
        address, agent = exchange.origin
        self.blocking.refuse_known(snapshot, address, agent)
        key = exchange.key = find_key(snapshot, before.digest, now_ms, address)
        endpoint, exchange.plan = self._admission(key, call.model)
        if endpoint.problem:
            raise closed(endpoint.problem)
        exchange.endpoint = exchange.answered_by = endpoint
        exchange.routed_s = 0.0  # what was waited for is no deployment's latency, and not part of its time

    def outgoing_body(self, exchange: Exchange) -> bytes:
        """The body for the chosen deployment: the client's, but for model name, usage option and token limit."""
        call, deployment, endpoint, asked = exchange.call, exchange.deployment, exchange.answered_by, exchange.endpoint
        assert call is not None and deployment is not None and endpoint is not None and asked is not None
        if exchange.form is not None:
            return exchange.form.with_model(exchange.body, asked.adapters.get(call.model, deployment.model))
        cap = None
        if endpoint.max_output_tokens is None and exchange.leases and endpoint.price is not None:
            cap = added_limit(call, exchange.path, endpoint)
        if not call.stream and cap is None and call.model == deployment.model and not asked.adapters:
            return exchange.body
        model = calls.upstream_model(call, asked.adapters, deployment)
        limit_name = calls.limit_name(exchange.path, deployment)
        return calls.rewrite(exchange.body, model, self.adds_usage(exchange), cap, limit_name)

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
            exchange.failed += ((deployment, status is None),)
        if exchange.trace is not None:
            exchange.trace.end_attempt(status or 0, now_s)
        allowed = max(e.policy.retries for e in endpoint.chain)
        return may_retry(status, exchange.retries, allowed, sent)

    def retry(self, exchange: Exchange, now_s: float, sent: bool = True) -> Deployment | None:
        """The deployment for a further attempt; the failed one stays ``exchange.deployment`` when there is none.
        ``sent``: the failed one was asked, so that this is a retry."""
        failed = exchange.deployment
        chosen = self.choose(exchange, now_s)
        if chosen is not None:
            exchange.retries += sent
            if failed is not None:
                failed.outstanding -= 1
        return chosen

    def first_byte(self, exchange: Exchange, status: int, now_s: float) -> None:
        """The first byte of the body of an answer that is passed on."""
        exchange.first_s = now_s
        deployment = exchange.deployment
        if deployment is not None and status not in FAILURE_STATUS:
            health.note_success(deployment, now_s - exchange.routed_s)
            if exchange.failed and not is_error(status):
                health.blame(exchange, now_s)

    def broken_off(self, exchange: Exchange) -> None:
        """The deployment broke off an answer that is passed on; one whose status was a failure is one already."""
        deployment, failed = exchange.deployment, exchange.failed
        if deployment is not None and (not failed or failed[-1][0] is not deployment):
            health.note_cut(deployment, exchange.first_s > 0.0)

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
        if exchange.failed:
            health.judge_unanswered(exchange)
        cost = 0
        tokens = usage.input_tokens + usage.output_tokens
        if outcome in FREE:
            tokens = 0
        elif endpoint is not None:
            cost = usage.input_tokens * endpoint.input_nanos + usage.output_tokens * endpoint.output_nanos
            if usage.cached_tokens:
                cost = cost_nanos(endpoint.price, usage)
            if cost > MOST:
                cost = MOST
            if usage_source == "counted" and exchange.leases:  # an estimate takes no more than was held
                tokens, cost = min(tokens, exchange.amounts[1]), min(cost, exchange.amounts[2])
        if deployment is not None:
            deployment.outstanding -= 1
        if exchange.leases:
            self._settle(exchange, (1, tokens, cost))
        arrived_s, routed_s, first_s = exchange.arrived_s, exchange.routed_s, exchange.first_s
        made = usage.output_tokens
        streamed = call is not None and bool(call.stream)
        token_s = first_s if streamed else 0.0  # a whole answer's first byte comes with its last token
        row = Row(
            exchange.event_id, exchange.ts_ms, self.gateway_id,
            key.project_id if key is not None else "",
            key.id if key is not None else "",
            exchange.endpoint.name if exchange.endpoint is not None else "",
            deployment.id if deployment is not None else "",
            deployment.model if deployment is not None else "",
            deployment.provider if deployment is not None else "",
            exchange.path, streamed, status, outcome, error_code,
            usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage_source,
            (token_s - arrived_s) * 1000.0 if token_s else None,
            (now_s - token_s) * 1000.0 / (made - 1) if token_s and made > 1 else None,
            (now_s - arrived_s) * 1000.0,
            (routed_s - arrived_s) * 1000.0 if routed_s else 0.0,
            cost, exchange.retries, made - usage.unseen_tokens if outcome == "cancelled" else 0,
            deployment.source if deployment is not None else "live",
            exchange.request_id,
        )  # fmt: skip
        if exchange.trace is not None:
            exchange.trace.end(row, call.model if call is not None else "", arrived_s, first_s, now_s)
        return row
