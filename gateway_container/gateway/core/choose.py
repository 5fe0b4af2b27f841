"""Which deployment of an endpoint answers: tiers in order, within a tier by the endpoint's routing policy."""

import math
import random
from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import Final

from isal.isal_zlib import crc32

from gateway.core.exchange import Exchange
from gateway.core.health import begin_probe, usable
from gateway.core.snapshot import Deployment, Endpoint

ANY_TIME_S: Final = math.inf
PREFIX_BLOCK_BYTES: Final = 1024
PREFIX_BLOCKS: Final = 1 << 18
PREFIX_SLACK: Final = 8  # so many more requests than the least busy one may wait at the one that has the prefix


class Chooser:
    """The routing state of one gateway: whose turn it is, and who has seen which prompt prefix."""

    def __init__(self, random_seed: int | None = None) -> None:
        self.random = random.Random(random_seed)  # noqa: S311 - spreads load, guards nothing
        self.turn = 0
        self.prefixes = PrefixMap()

    def choose_for(self, exchange: Exchange, now_s: float) -> Deployment | None:
        """The deployment for the next attempt: in the endpoint's tiers, then in its fallbacks'."""
        chosen = self._choose_for(exchange, now_s)
        if chosen is None and sleeping(exchange) is None:
            chosen = self._choose_for(exchange, ANY_TIME_S)  # rather one that failed of late than none
        if chosen is not None and (chosen.open_until_s or chosen.ejected_until_s):
            begin_probe(chosen, now_s)
        return chosen

    def _choose_for(self, exchange: Exchange, now_s: float) -> Deployment | None:
        endpoint = exchange.endpoint
        assert endpoint is not None
        for possible in endpoint.chain:
            if possible is not endpoint and not _serves(possible, exchange):
                continue
            chosen = self.choose(possible, exchange.tried, now_s, exchange.body)
            if chosen is not None:
                exchange.answered_by = possible
                return chosen
        return None

    def choose(
        self, endpoint: Endpoint, tried: Collection[Deployment], now_s: float, body: bytes = b""
    ) -> Deployment | None:
        """The deployment for the next attempt, or None when none is left."""
        routing = endpoint.routing
        for tier in endpoint.tiers:
            if routing == "least_outstanding":
                chosen = self._least_outstanding(tier, tried, now_s)
                if chosen is not None:
                    return chosen
                continue
            ready = tuple([d for d in tier if usable(d, now_s) and d not in tried])
            if not ready:
                continue
            if routing == "prefix_affinity":
                return self._by_prefix(ready, body, now_s)
            if routing == "weighted":
                return self.random.choices(ready, [d.weight for d in ready])[0]
            return min(ready, key=predicted_wait_s)
        return None

    def _least_outstanding(
        self, tier: tuple[Deployment, ...], tried: Collection[Deployment], now_s: float
    ) -> Deployment | None:
        """Fewest requests in flight per weight; equals take turns."""
        self.turn += 1
        best = None
        for number in range(self.turn, self.turn + len(tier)):
            deployment = tier[number % len(tier)]
            if deployment.open_until_s > now_s or deployment.ejected_until_s > now_s or deployment in tried:
                continue
            if deployment.asleep:
                continue
            if best is None:
                best = deployment
                continue
            if deployment.outstanding * best.weight < best.outstanding * deployment.weight:
                best = deployment
        return best

    def _by_prefix(self, ready: tuple[Deployment, ...], body: bytes, now_s: float) -> Deployment:
        chain = chain_of(body)
        owner, depth = self.prefixes.owner(chain)
        chosen = None
        if owner is not None and owner in ready:
            least = min(d.outstanding for d in ready)
            if owner.outstanding <= least + PREFIX_SLACK + depth // 8:
                chosen = owner
        if chosen is None:
            chosen, depth = self._least_outstanding(ready, (), now_s) or ready[0], 0
        self.prefixes.learn(chain[depth:], chosen)
        return chosen


def _serves(fallback: Endpoint, exchange: Exchange) -> bool:
    """Whether the engines of a fallback have what was asked for: of a LoRA adapter, the same one."""
    asked, call = exchange.endpoint, exchange.call
    assert asked is not None and call is not None
    adapter = asked.adapters.get(call.model)
    return adapter is None or adapter in fallback.adapters.values()


def sleeping(exchange: Exchange) -> Deployment | None:
    """A deployment that would answer if it were woken, where the endpoint holds requests for that."""
    endpoint = exchange.endpoint
    if endpoint is None or not endpoint.sleepers:
        return None
    return next((d for d in endpoint.sleepers if d not in exchange.tried), None)


def predicted_wait_s(deployment: Deployment) -> float:
    """Expected time to the first byte: what was seen lately, times the requests that are ahead."""
    return max(deployment.latency_s, 1e-4) * (deployment.outstanding + 1) / deployment.weight


class PrefixMap:
    """Least recently used map from prompt prefixes to the deployment whose cache has them."""

    def __init__(self, capacity: int = PREFIX_BLOCKS) -> None:
        self.capacity = capacity
        self.owners: OrderedDict[int, Deployment] = OrderedDict()

    def owner(self, chain: Sequence[int]) -> tuple[Deployment | None, int]:
        """Who has the longest prefix, and how many blocks of it."""
        best: Deployment | None = None
        depth = 0
        for link in chain:
            found = self.owners.get(link)
            if found is None or (best is not None and found is not best):
                break
            best = found
            depth += 1
        if depth:
            self.owners.move_to_end(chain[depth - 1])
        return best, depth

    def learn(self, chain: Sequence[int], deployment: Deployment) -> None:
        for link in chain:
            self.owners[link] = deployment
            self.owners.move_to_end(link)
        while len(self.owners) > self.capacity:
            self.owners.popitem(last=False)


def chain_of(body: bytes) -> list[int]:
    """Hash chain over whole blocks from where the prompt begins: equal links mean equal prefixes.

    A CRC is by far the fastest and good enough: a collision costs a cache miss, nothing else. Blocks grow with the
    prompt, so that a long one costs no more links than a short one.
    """
    start = prompt_start(body)
    size = PREFIX_BLOCK_BYTES if len(body) < 32 * PREFIX_BLOCK_BYTES else 4 * PREFIX_BLOCK_BYTES
    link = size
    chain = []
    view = memoryview(body)
    for at in range(start, len(body) - size + 1, size):
        link = crc32(view[at : at + size], link)
        chain.append(link)
    return chain


def prompt_start(body: bytes) -> int:
    """Where the messages or the prompt begin, so that fields before them (model, user) do not matter."""
    for name in (b'"messages"', b'"prompt"', b'"input"'):
        at = body.find(name, 0, 4096)
        if at >= 0:
            return at
    return 0
