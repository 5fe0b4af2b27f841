"""The binary framing of application/vnd.amazon.eventstream: messages with headers, a payload and two checksums.

Bedrock's messages have string headers only; a message with any other is refused.
"""

import struct
from zlib import crc32

from gateway.core.stage import Garbled

PRELUDE = struct.Struct(">III")  # length of all, length of the headers, checksum of these two
MAX_MESSAGE_BYTES = 16 << 20
STRING = 7


class MessageReader:
    """Takes a stream of bytes, gives headers and payload of each whole message."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[tuple[dict[str, str], bytes]]:
        """Raises Garbled."""
        self._rest += data
        messages = []
        at = 0
        while len(self._rest) - at >= PRELUDE.size:
            size = _size(self._rest, at)
            if len(self._rest) - at < size:
                break
            messages.append(_message(self._rest[at : at + size]))
            at += size
        self._rest = self._rest[at:]
        return messages

    @property
    def between(self) -> bool:
        """No message is incomplete."""
        return not self._rest


def _size(data: bytes, at: int) -> int:
    size, headers, checksum = PRELUDE.unpack_from(data, at)
    if crc32(data[at : at + 8]) != checksum:
        raise Garbled("the checksum of a message's prelude is wrong")
    if not PRELUDE.size + headers + 4 <= size <= MAX_MESSAGE_BYTES:
        raise Garbled("the lengths of a message are wrong")
    return int(size)


def _message(message: bytes) -> tuple[dict[str, str], bytes]:
    if crc32(message[:-4]) != int.from_bytes(message[-4:], "big"):
        raise Garbled("the checksum of a message is wrong")
    end = PRELUDE.size + int.from_bytes(message[4:8], "big")
    return _headers(message[PRELUDE.size : end]), message[end:-4]


def _headers(data: bytes) -> dict[str, str]:
    headers = {}
    at = 0
    try:
        while at < len(data):
            name, at = _field(data, at + 1, data[at])
            if data[at] != STRING:
                raise Garbled("a header is not a string")
            headers[name], at = _field(data, at + 3, int.from_bytes(data[at + 1 : at + 3], "big"))
    except (IndexError, UnicodeDecodeError):
        raise Garbled("the headers of a message are wrong") from None
    return headers


def _field(data: bytes, start: int, size: int) -> tuple[str, int]:
    if start + size > len(data):
        raise IndexError
    return data[start : start + size].decode(), start + size
