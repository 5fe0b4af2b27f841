"""The stage that lets a client speak one dialect and a deployment another."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

from gateway.core.call import INFERENCE_PATHS, asks_usage
from gateway.core.dialects import (
    anthropic_reader,
    anthropic_request,
    anthropic_writer,
    bedrock_reader,
    bedrock_request,
    gemini_reader,
    gemini_request,
    openai_reader,
    openai_request,
    openai_writer,
)
from gateway.core.dialects.conversation import (
    Conversation,
    Event,
    Failed,
    TextDelta,
    ThinkingDelta,
    ToolDelta,
    Used,
    without_thinking,
)
from gateway.core.dialects.embeddings import (
    EmbeddingTranslator,
    read_gemini,
    read_titan,
    write_gemini,
    write_titan,
)
from gateway.core.dialects.provider import message_of, model_of
from gateway.core.problems import Rejected, is_error
from gateway.core.reserve import DEFAULT_MAX_OUTPUT_TOKENS
from gateway.core.stage import AnswerHead, Garbled, Outgoing, Translation, TranslationMaker
from gateway.core.usage import BYTES_PER_TOKEN, MAX_READ_BYTES, Usage

if TYPE_CHECKING:
    from gateway.core.exchange import Exchange

CHAT, MESSAGES, EMBEDDINGS = "/v1/chat/completions", "/v1/messages", "/v1/embeddings"
STREAMS = (b"text/event-stream", b"application/vnd.amazon.eventstream")


class Reader(Protocol):
    """Reads a provider's answer. Each method raises Garbled."""

    def feed(self, data: bytes) -> list[Event]: ...
    def end(self) -> list[Event]: ...
    def whole(self, body: bytes) -> list[Event]: ...


class Writer(Protocol):
    """Writes a streamed answer for a client."""

    def write(self, given: Event) -> bytes: ...
    def end(self) -> bytes: ...


class Client:
    """A dialect as clients use it."""

    def __init__(
        self,
        read: Callable[[bytes], Conversation],
        writer: Callable[["Exchange"], Writer],
        whole: Callable[[list[Event]], bytes],
        error: Callable[[int, str], bytes],
    ) -> None:
        self.read = read
        self.writer = writer
        self.whole = whole
        self.error = error


class Provider:
    """A dialect as providers use it. ``write`` sets the path and body of a request."""

    def __init__(
        self, write: Callable[[Conversation, "Exchange", Outgoing], None], reader: Callable[["Exchange"], Reader]
    ) -> None:
        self.write = write
        self.reader = reader


class Translator(Translation):
    """Translates one attempt: the request on its way out, the answer on its way in."""

    def __init__(self, client: Client, provider: Provider, exchange: "Exchange") -> None:
        super().__init__(exchange)
        self.client = client
        self.provider = provider
        self.streamed = False  # to the client
        self._reader: Reader | None = None  # of a stream
        self._writer = client.writer(exchange)
        self._status = 0
        self._head: AnswerHead | None = None  # waits: what is not understood may still become a problem
        self._parts: list[bytes] = []
        self._kept_bytes = 0
        self._events: list[Event] = []

    def outgoing(self, request: Outgoing) -> None:
        conversation = self.client.read(request.body)
        self.streamed = conversation.stream
        request.retype(b"application/json")
        self.provider.write(conversation, self.exchange, request)

    def head(self, head: AnswerHead) -> None:
        self._status = head.status
        if not is_error(head.status) and head.content_type.startswith(STREAMS):
            self._reader = self.provider.reader(self.exchange)
        head.retype(b"text/event-stream" if self.streamed and not is_error(head.status) else b"application/json")
        self._head = head

    def data(self, data: bytes) -> None:
        self._kept_bytes += len(data)
        if self._kept_bytes > MAX_READ_BYTES and not (self.streamed and self._reader is not None):
            raise Garbled("the answer is too large")
        if self._reader is not None:
            self._tell(self._reader.feed(data))
        else:
            self._parts.append(data)

    def end(self) -> None:
        body = b"".join(self._parts)
        if is_error(self._status):
            self._write(self.client.error(self._status, message_of(body)))
            self.down.end()
            return
        self._tell(self._reader.end() if self._reader is not None else self.provider.reader(self.exchange).whole(body))
        self._write(self._writer.end() if self.streamed else self.client.whole(self._events))
        self.down.end()

    def _tell(self, events: list[Event]) -> None:
        for event in events:
            self._note(event)
        if not self.streamed:
            self._events += events
        elif written := b"".join([self._writer.write(event) for event in events]):
            self._write(written)

    def _write(self, data: bytes) -> None:
        head, self._head = self._head, None
        if head is not None:
            self.down.head(head)
        if data:
            self.down.data(data)

    def _note(self, event: Event) -> None:
        if isinstance(event, Used):
            self.usage = Usage(event.tokens.input, event.tokens.output, event.tokens.cache_read)
        elif isinstance(event, TextDelta | ThinkingDelta | ToolDelta):
            said = event.arguments if isinstance(event, ToolDelta) else event.text
            self.events += max(len(said) // BYTES_PER_TOKEN, 1)
        elif isinstance(event, Failed):
            self.pipeline.outcome = "failed"


class Unserved(Translation):
    """A path that the provider has nothing for."""

    def outgoing(self, request: Outgoing) -> None:
        raise Rejected("invalid_request", f"The provider of this model does not serve {request.path}.", param="model")


# --- who speaks what --------------------------------------------------------------------------------------------


def _openai_writer(exchange: "Exchange") -> Writer:
    return openai_writer.Writer(exchange.call is not None and asks_usage(exchange.call))


def _write_openai(conversation: Conversation, exchange: "Exchange", request: Outgoing) -> None:
    deployment = exchange.deployment
    assert deployment is not None
    request.path = CHAT
    if deployment.provider == "mistral":
        conversation.user = None  # refused there, as every field that it does not know
    if deployment.provider == "mistral" or deployment.limit_name == "max_completion_tokens":  # OpenAI's own servers
        conversation.turns = without_thinking(conversation.turns)
    request.body = openai_request.write(
        conversation, model_of(exchange), deployment.limit_name, deployment.stream_usage
    )


def _write_anthropic(conversation: Conversation, exchange: "Exchange", request: Outgoing) -> None:
    endpoint = exchange.answered_by
    limit = endpoint.max_output_tokens if endpoint is not None else None
    request.path = MESSAGES
    request.headers.append((b"anthropic-version", b"2023-06-01"))
    request.body = anthropic_request.write(conversation, model_of(exchange), limit or DEFAULT_MAX_OUTPUT_TOKENS)


def _write_bedrock(conversation: Conversation, exchange: "Exchange", request: Outgoing) -> None:
    operation = "converse-stream" if conversation.stream else "converse"
    request.path = f"/model/{quote(model_of(exchange), safe='')}/{operation}"
    request.body = bedrock_request.write(conversation)


def _write_gemini(conversation: Conversation, exchange: "Exchange", request: Outgoing) -> None:
    """A URL without a path is the Gemini API's; Vertex AI's has the project, the location and the publisher in it."""
    method = "streamGenerateContent?alt=sse" if conversation.stream else "generateContent"
    version = "" if request.prefix else "/v1beta"
    request.path = f"{version}/models/{quote(model_of(exchange), safe='')}:{method}"
    request.body = gemini_request.write(conversation)


CLIENTS = {
    CHAT: Client(openai_request.read, _openai_writer, openai_writer.whole, openai_writer.error),
    MESSAGES: Client(
        anthropic_request.read, lambda _: anthropic_writer.Writer(), anthropic_writer.whole, anthropic_writer.error
    ),
}
OPENAI = Provider(_write_openai, lambda _: openai_reader.Reader())
ANTHROPIC = Provider(_write_anthropic, lambda _: anthropic_reader.Reader())
BEDROCK = Provider(_write_bedrock, lambda exchange: bedrock_reader.Reader(exchange.event_id, model_of(exchange)))
GEMINI = Provider(_write_gemini, lambda exchange: gemini_reader.Reader(exchange.event_id, model_of(exchange)))


def translations(provider: str) -> dict[str, TranslationMaker]:
    """By path, how a provider's deployments are spoken to; paths that pass untouched are not in it."""
    if provider == "anthropic":
        return _only(ANTHROPIC, untouched=MESSAGES)
    if provider == "bedrock":
        return _only(BEDROCK) | {EMBEDDINGS: partial(EmbeddingTranslator, write_titan, read_titan)}
    if provider == "gemini":
        return _only(GEMINI) | {EMBEDDINGS: partial(EmbeddingTranslator, write_gemini, read_gemini)}
    return {MESSAGES: partial(Translator, CLIENTS[MESSAGES], OPENAI)}


def _only(provider: Provider, untouched: str = "") -> dict[str, TranslationMaker]:
    made: dict[str, TranslationMaker] = {path: Unserved for path in INFERENCE_PATHS}
    made |= {path: partial(Translator, client, provider) for path, client in CLIENTS.items()}
    made.pop(untouched, None)
    return made
