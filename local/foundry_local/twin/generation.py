"""Running a generation request on the engine: its sequences, their text, stop strings and natural ends."""

import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from foundry_local.twin.batching import FINISH_LENGTH, FINISH_STOP, Sequence
from foundry_local.twin.engine import Ticket, TwinEngine
from foundry_local.twin.openai import Generation, RequestError
from foundry_local.twin.tokens import Filler, seed_of, split_tokens

# Without max_tokens an answer ends by itself after this many tokens, spread by the prompt: 96 to 351.
_NATURAL_BASE, _NATURAL_SPREAD = 96, 256


@dataclass(frozen=True, slots=True)
class Piece:
    """New text of one choice; `finished` on the last one."""

    text: str
    tokens: int
    finished: str | None = None


class Choice:
    """One sequence and the text that it has produced so far."""

    def __init__(self, engine: TwinEngine, ticket: Ticket, filler: Filler, stop: tuple[str, ...]) -> None:
        self._engine = engine
        self._ticket = ticket
        self._filler = filler
        self._stop = stop
        self._hold = max((len(item) for item in stop), default=1) - 1
        self._pending = ""
        self.seen = 0

    async def pieces(self) -> AsyncIterator[Piece]:
        """Text as it comes, held back while it may still turn out to be a stop string."""
        sequence = self._ticket.sequence
        while True:
            await self._ticket.wait_beyond(self.seen)
            produced, finished = sequence.produced, sequence.finished
            while self.seen < produced:
                self.seen += 1
                last = finished if self.seen == produced else None
                piece = self._advance(last)
                if piece is not None:
                    yield piece
                    if piece.finished:
                        return
            if finished and sequence.produced == self.seen:
                yield Piece(self._pending, 0, finished)
                return

    def _advance(self, finished: str | None) -> Piece | None:
        self._pending += self._filler.next()
        if self._stop and (cut := self._cut()) is not None:
            self._engine.stop_sequence(self._ticket.sequence)
            return Piece(self._pending[:cut], 1, FINISH_STOP)
        if finished:
            return Piece(self._pending, 1, finished)
        ready = len(self._pending) - self._hold
        text, self._pending = self._pending[: max(ready, 0)], self._pending[max(ready, 0) :]
        return Piece(text, 1)

    def _cut(self) -> int | None:
        found = [at for item in self._stop if (at := self._pending.find(item)) >= 0]
        return min(found, default=None)

    def abort(self) -> None:
        self._engine.abort(self._ticket.sequence)


def start(engine: TwinEngine, request: Generation) -> list[Choice]:
    """Submit the sequences of a request.

    Raises:
        RequestError: 400, the prompt is too long.
    """
    limits = [_limit(engine, request, tokens) for tokens in request.prompt_tokens]
    choices = []
    for prompt, tokens, limit in zip(request.prompts, request.prompt_tokens, limits, strict=True):
        for number in range(request.choices):
            seed = seed_of(prompt, request.seed) + number
            sequence = Sequence(tokens, limit, natural_tokens=_natural(request, seed))
            if engine.prefix_caching:
                sequence.prefix = block_hashes(prompt, tokens, engine.model.block_tokens)
            choices.append(Choice(engine, engine.submit(sequence), Filler(seed), request.stop))
    return choices


def _limit(engine: TwinEngine, request: Generation, prompt_tokens: int) -> int:
    """Tokens that the answer may have."""
    window = engine.model.max_model_len
    if prompt_tokens >= window:
        raise RequestError(
            f"This model's maximum context length is {window} tokens. However, your request has {prompt_tokens} "
            "input tokens. Please reduce the length of the input messages.",
            param="input_tokens",
        )
    if request.max_tokens is not None and prompt_tokens + request.max_tokens > window:
        raise RequestError(
            f"'max_tokens' or 'max_completion_tokens' is too large: {request.max_tokens}. This model's maximum "
            f"context length is {window} tokens and your request has {prompt_tokens} input tokens "
            f"({request.max_tokens} > {window} - {prompt_tokens}).",
            param="max_tokens",
        )
    if -(-(prompt_tokens + 1) // engine.model.block_tokens) > engine.model.kv_blocks:
        raise RequestError(f"the prompt of {prompt_tokens} tokens does not fit the KV cache", param="input_tokens")
    return window - prompt_tokens if request.max_tokens is None else request.max_tokens


def _natural(request: Generation, seed: int) -> int | None:
    if request.ignore_eos or request.max_tokens is not None:
        return None
    return max(request.min_tokens, _NATURAL_BASE + seed % _NATURAL_SPREAD)


def block_hashes(prompt: str, tokens: int, block_tokens: int) -> tuple[int, ...]:
    """A chained hash for each full block of the prompt: equal leading text gives equal leading hashes."""
    hashes: list[int] = []
    value = 0
    for position, token in enumerate(split_tokens(prompt), start=1):
        value = zlib.crc32(token.encode("utf-8", "surrogatepass"), value)
        if position % block_tokens == 0:
            hashes.append(hash((value, len(hashes))))
    return tuple(hashes[: tokens // block_tokens])


__all__ = ["FINISH_LENGTH", "Choice", "Piece", "block_hashes", "start"]
