"""The HTTP surface of a twin, as raw ASGI: nothing between a token and the socket but one `send`."""

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.types import Receive, Scope, Send

from foundry_local.twin import openai
from foundry_local.twin.asgi import STREAM, TEXT, ClientGone, locked, read_body, respond, until_gone
from foundry_local.twin.batching import Sequence
from foundry_local.twin.embeddings import embedding
from foundry_local.twin.engine import TwinEngine
from foundry_local.twin.generation import Choice, start
from foundry_local.twin.openai import ChunkWriter, Generation, RequestError, dumps
from foundry_local.twin.options import EngineOptions
from foundry_local.twin.tokens import count_tokens

VERSION = "0.11.0"

Handler = Callable[[Scope, Receive, Send], Awaitable[None]]


class TwinApp:
    """One engine's server application."""

    def __init__(self, engine: TwinEngine, options: EngineOptions) -> None:
        self.engine = engine
        self.options = options
        self.created = int(time.time())
        self.load = 0
        self._routes: Mapping[tuple[str, str], Handler] = {
            ("GET", "/health"): self._health,
            ("GET", "/ping"): self._health,
            ("POST", "/ping"): self._health,
            ("GET", "/version"): self._version,
            ("GET", "/load"): self._load,
            ("GET", "/metrics"): self._metrics,
            ("GET", "/v1/models"): self._models,
            ("POST", "/v1/chat/completions"): self._chat,
            ("POST", "/v1/completions"): self._completion,
            ("POST", "/v1/embeddings"): self._embeddings,
            ("POST", "/tokenize"): self._tokenize,
        }
        self._paths = {path for _, path in self._routes}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"].rstrip("/") or "/"
        handler = self._routes.get((scope["method"], path))
        try:
            self._authorise(scope, path)
            if handler is None:
                code = 405 if path in self._paths else 404
                raise RequestError("Method Not Allowed" if code == 405 else "Not Found", code, "NotFoundError")
            await handler(scope, receive, send)
        except RequestError as problem:
            await respond(send, problem.code, dumps(problem.document()))
        except ClientGone:
            pass

    def _authorise(self, scope: Scope, path: str) -> None:
        """As vLLM: the key guards /v1 only."""
        if not self.options.api_keys or not path.startswith("/v1"):
            return
        header = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        token = header[7:] if header[:7].lower() == b"bearer " else b""
        if not any([hmac.compare_digest(token, key.encode()) for key in self.options.api_keys]):
            raise RequestError("Unauthorized", 401, "AuthenticationError")

    async def _health(self, scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, 200, b"")

    async def _version(self, scope: Scope, receive: Receive, send: Send) -> None:
        model = self.engine.model
        document = {"version": VERSION, "source": "twin", "device": model.device}
        document["notice"] = "twin engine: the timing is simulated and the text is filler, no model runs here"
        await respond(send, 200, dumps(document))

    async def _load(self, scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, 200, dumps({"server_load": self.load}))

    async def _metrics(self, scope: Scope, receive: Receive, send: Send) -> None:
        model = self.engine.model
        cache = {
            "block_size": str(model.block_tokens),
            "num_gpu_blocks": str(model.kv_blocks),
            "gpu_memory_utilization": str(self.options.memory_utilization),
            "cache_dtype": self.options.kv_cache_dtype,
            "enable_prefix_caching": str(self.engine.prefix_caching),
        }
        await respond(send, 200, self.engine.metrics.render(cache).encode(), TEXT)

    async def _models(self, scope: Scope, receive: Receive, send: Send) -> None:
        cards: list[dict[str, Any]] = [
            {
                "id": name,
                "object": "model",
                "created": self.created,
                "owned_by": "vllm",
                "root": self.options.model,
                "parent": None,
                "max_model_len": self.engine.model.max_model_len,
                "permission": [],
            }
            for name in self.options.served_names
        ]
        await respond(send, 200, dumps({"object": "list", "data": cards}))

    async def _tokenize(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = openai.parse_json(await read_body(receive))
        if "messages" in body:
            count = openai.parse_chat(body).prompt_tokens[0]
        else:
            count = count_tokens(str(body.get("prompt", "")))
        await respond(send, 200, dumps({"count": count, "max_model_len": self.engine.model.max_model_len}))

    async def _chat(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._generate(receive, send, openai.parse_chat)

    async def _completion(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._generate(receive, send, openai.parse_completion)

    async def _generate(self, receive: Receive, send: Send, parse: Callable[[Mapping[str, Any]], Generation]) -> None:
        body = openai.parse_json(await read_body(receive))
        self._check_model(body)
        if self.engine.model.task != "generate":
            raise RequestError("The model does not support text generation", 400)
        request = parse(body)
        choices = start(self.engine, request)
        answer = self._stream if request.stream else self._whole
        self.load += 1
        try:
            await until_gone(receive, answer(send, request, choices, str(body["model"])))
        finally:
            self.load -= 1
            for choice in choices:
                choice.abort()

    def _check_model(self, body: Mapping[str, Any]) -> None:
        name = body.get("model") or self.options.served_names[0]
        if name not in self.options.served_names:
            raise RequestError(f"The model `{name}` does not exist.", 404, "NotFoundError", "model")
        if isinstance(body, dict):
            body["model"] = name

    async def _stream(self, send: Send, request: Generation, choices: list[Choice], model: str) -> None:
        writer = ChunkWriter(request, model, openai.new_id(request.chat))
        await send({"type": "http.response.start", "status": 200, "headers": STREAM})
        if len(choices) == 1:
            counts = [await self._stream_choice(send, writer, 0, choices[0], request)]
        else:
            one_by_one = locked(send)
            jobs = [
                self._stream_choice(one_by_one, writer, index, choice, request) for index, choice in enumerate(choices)
            ]
            counts = list(await asyncio.gather(*jobs))
        tail = writer.usage(_prompt_total(request), sum(counts)) if request.include_usage else b""
        await send({"type": "http.response.body", "body": tail + openai.DONE, "more_body": False})

    async def _stream_choice(
        self, send: Send, writer: ChunkWriter, index: int, choice: Choice, request: Generation
    ) -> int:
        """Stream one choice; returns its number of tokens."""
        tokens = 0
        opening = writer.role(index) if request.chat else b""
        if request.echo:
            opening += writer.finish(index, request.prompts[index // request.choices], "")
        async for piece in choice.pieces():
            tokens += piece.tokens
            if piece.finished:
                chunk = writer.finish(index, piece.text, piece.finished)
            elif piece.text:
                chunk = writer.text(index, piece.text)
            else:
                continue
            await send({"type": "http.response.body", "body": opening + chunk, "more_body": True})
            opening = b""
        return tokens

    async def _whole(self, send: Send, request: Generation, choices: list[Choice], model: str) -> None:
        results = await asyncio.gather(*(_collect(choice) for choice in choices))
        entries = [_entry(request, index, text, reason) for index, (text, _, reason) in enumerate(results)]
        document = {
            "id": openai.new_id(request.chat),
            "object": "chat.completion" if request.chat else "text_completion",
            "created": int(time.time()),
            "model": model,
            "choices": entries,
            "usage": openai.usage(_prompt_total(request), sum(tokens for _, tokens, _ in results)),
        }
        await respond(send, 200, dumps(document))

    async def _embeddings(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = openai.parse_json(await read_body(receive))
        self._check_model(body)
        prompts, tokens = openai.parse_inputs(body)
        size = openai.parse_dimensions(body, self.engine.model.hidden)
        await until_gone(receive, self._embed(send, body, prompts, tokens, size))

    async def _embed(
        self, send: Send, body: Mapping[str, Any], prompts: tuple[str, ...], tokens: tuple[int, ...], size: int
    ) -> None:
        sequences = [Sequence(count, 1) for count in tokens]
        too_long = max(tokens)
        if too_long >= self.engine.model.max_model_len:
            limit = self.engine.model.max_model_len
            raise RequestError(f"This model's maximum context length is {limit} tokens, the input has {too_long}.")
        tickets = [self.engine.submit(sequence) for sequence in sequences]
        try:
            for ticket in tickets:
                await ticket.wait_beyond(0)
        finally:
            for sequence in sequences:
                self.engine.abort(sequence)
        as_text = body.get("encoding_format") == "base64"
        data = [
            {"object": "embedding", "index": index, "embedding": embedding(prompt, size, as_text=as_text)}
            for index, prompt in enumerate(prompts)
        ]
        document = {"object": "list", "model": body["model"], "data": data}
        document |= {"id": f"embd-{openai.new_id(False)[5:]}", "created": int(time.time())}
        await respond(send, 200, dumps(document | {"usage": openai.usage(sum(tokens), 0)}))


async def _collect(choice: Choice) -> tuple[str, int, str]:
    texts, tokens, reason = [], 0, ""
    async for piece in choice.pieces():
        texts.append(piece.text)
        tokens += piece.tokens
        reason = piece.finished or ""
    return "".join(texts), tokens, reason


def _entry(request: Generation, index: int, text: str, reason: str) -> dict[str, Any]:
    ending = {"logprobs": None, "finish_reason": reason, "stop_reason": None}
    if request.chat:
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None, "tool_calls": []}
        return {"index": index, "message": message} | ending
    prompt = request.prompts[index // request.choices] if request.echo else ""
    return {"index": index, "text": prompt + text} | ending


def _prompt_total(request: Generation) -> int:
    return sum(request.prompt_tokens)
