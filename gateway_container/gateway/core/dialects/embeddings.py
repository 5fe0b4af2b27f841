"""OpenAI's embeddings for providers that shape them otherwise: Gemini (batchEmbedContents), Titan on Bedrock."""

import struct
from base64 import b64encode
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

import msgspec

from gateway.core import usage as usages
from gateway.core.dialects import openai_writer
from gateway.core.dialects.conversation import refuse
from gateway.core.dialects.document import NULL, encode, of_client, of_provider, said
from gateway.core.dialects.provider import message_of, model_of
from gateway.core.problems import is_error
from gateway.core.stage import AnswerHead, Garbled, Outgoing, Translation
from gateway.core.usage import MAX_READ_BYTES, Usage

if TYPE_CHECKING:
    from gateway.core.exchange import Exchange

Vector = list[float]


class Request(msgspec.Struct, forbid_unknown_fields=True):
    """OpenAI API reference, "Create embeddings". Tokens in place of text mean something else to every model."""

    model: str
    input: str | list[str]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: msgspec.Raw = NULL

    @property
    def texts(self) -> list[str]:
        return [self.input] if isinstance(self.input, str) else self.input


class GeminiEmbedding(msgspec.Struct):
    values: Vector


class GeminiUsage(msgspec.Struct, rename="camel"):
    prompt_token_count: int = 0


class GeminiAnswer(msgspec.Struct, rename="camel"):
    embeddings: list[GeminiEmbedding]
    usage_metadata: GeminiUsage | None = None


class TitanAnswer(msgspec.Struct, rename="camel"):
    embedding: Vector
    input_text_token_count: int = 0


_request = msgspec.json.Decoder(Request)
_gemini = msgspec.json.Decoder(GeminiAnswer)
_titan = msgspec.json.Decoder(TitanAnswer)
Write = Callable[[Request, str, Outgoing], None]
Read = Callable[[bytes], tuple[list[Vector], int | None]]


class EmbeddingTranslator(Translation):
    """``read`` gives the vectors of an answer and its tokens, None where it does not say."""

    def __init__(self, write: Write, read: Read, exchange: "Exchange") -> None:
        super().__init__(exchange)
        self._write = write
        self._read = read
        self._asked = Request("", "")
        self._model = ""
        self._status = 0
        self._parts: list[bytes] = []
        self._kept_bytes = 0

    def outgoing(self, request: Outgoing) -> None:
        self._asked = of_client(request.body, _request)
        self._model = model_of(self.exchange)
        request.retype(b"application/json")
        self._write(self._asked, self._model, request)

    def head(self, head: AnswerHead) -> None:
        self._status = head.status
        head.retype(b"application/json")
        self.down.head(head)

    def data(self, data: bytes) -> None:
        self._parts.append(data)
        self._kept_bytes += len(data)
        if self._kept_bytes > MAX_READ_BYTES:
            raise Garbled("the answer is too large")

    def end(self) -> None:
        self.down.data(self._answer(b"".join(self._parts)))
        self.down.end()

    def _answer(self, body: bytes) -> bytes:
        if is_error(self._status):
            return openai_writer.error(self._status, message_of(body))
        vectors, tokens = self._read(body)
        if len(vectors) != len(self._asked.texts):
            raise Garbled("as many vectors as texts were expected")
        self._note(tokens)
        return self._said(vectors)

    def _note(self, tokens: int | None) -> None:
        if tokens is None:
            self.usage, self.usage_source = usages.counted(len(self.exchange.body), 0), "counted"
        else:
            self.usage = Usage(tokens)

    def _said(self, vectors: list[Vector]) -> bytes:
        assert self.usage is not None
        packed = self._asked.encoding_format == "base64"
        data = [
            {"object": "embedding", "index": index, "embedding": _packed(vector) if packed else vector}
            for index, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": self.usage.input_tokens, "total_tokens": self.usage.input_tokens}
        return encode(object="list", data=data, model=self._model, usage=usage)


def _packed(vector: Vector) -> str:
    """As OpenAI's SDK asks for it: little-endian 32-bit floats in base64."""
    try:
        return b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
    except OverflowError:
        raise Garbled("a number is too large") from None


def write_gemini(asked: Request, model: str, request: Outgoing) -> None:
    """Raises Rejected."""
    if "/publishers/" in request.prefix:
        refuse("model", "Embeddings of Vertex AI are not translated.")
    requests: list[dict[str, Any]] = [
        said(model=f"models/{model}", content={"parts": [{"text": text}]}, outputDimensionality=asked.dimensions)
        for text in asked.texts
    ]
    version = "" if request.prefix else "/v1beta"
    request.path = f"{version}/models/{quote(model, safe='')}:batchEmbedContents"
    request.body = encode(requests=requests)


def read_gemini(body: bytes) -> tuple[list[Vector], int | None]:
    """Raises Garbled."""
    answer = of_provider(body, _gemini)
    tokens = answer.usage_metadata.prompt_token_count if answer.usage_metadata is not None else None
    return [embedding.values for embedding in answer.embeddings], tokens


def write_titan(asked: Request, model: str, request: Outgoing) -> None:
    """Raises Rejected."""
    if len(asked.texts) != 1:
        refuse("input", "This model embeds one text at a time.")
    request.path = f"/model/{quote(model, safe='')}/invoke"
    request.body = encode(inputText=asked.texts[0], dimensions=asked.dimensions)


def read_titan(body: bytes) -> tuple[list[Vector], int | None]:
    """Raises Garbled."""
    answer = of_provider(body, _titan)
    return [answer.embedding], answer.input_text_token_count
