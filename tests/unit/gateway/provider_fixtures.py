"""The transcribed answers of providers (see ``providers/README.md``) as bytes, and Bedrock's binary framing."""

import json
import struct
from pathlib import Path
from typing import Any
from zlib import crc32

DIRECTORY = Path(__file__).parent / "providers"
PROVIDERS = ("openai", "anthropic", "bedrock", "gemini")


def whole(provider: str) -> bytes:
    return (DIRECTORY / f"{provider}.json").read_bytes()


def error(provider: str) -> bytes:
    return (DIRECTORY / f"{provider}.error.json").read_bytes()


def stream(provider: str) -> bytes:
    if provider != "bedrock":
        return (DIRECTORY / f"{provider}.sse").read_bytes()
    events = json.loads((DIRECTORY / "bedrock.stream.json").read_bytes())
    return b"".join(frame({":message-type": "event", ":event-type": kind}, payload) for kind, payload in events)


def frame(headers: dict[str, str], payload: Any, kind: int = 7) -> bytes:
    """A message of application/vnd.amazon.eventstream; ``kind`` 7: its headers are strings."""
    packed = b"".join(
        struct.pack(">B", len(name)) + name.encode() + struct.pack(">BH", kind, len(value)) + value.encode()
        for name, value in headers.items()
    )
    body = json.dumps(payload).encode()
    prelude = struct.pack(">II", len(packed) + len(body) + 16, len(packed))
    message = prelude + struct.pack(">I", crc32(prelude)) + packed + body
    return message + struct.pack(">I", crc32(message))
