"""The fields that are needed of a multipart/form-data body: two for policy (audio, images), whose files are never
looked at, and the file of an upload.

Strict on purpose: an engine must not find another model in a form than the one that was checked here, so whatever
parsers could disagree about is refused (RFC 7578, RFC 2046).
"""

import re
from collections.abc import Callable
from typing import Final

from gateway.core.call import Call
from gateway.core.problems import Rejected
from gateway.core.shapes import TextCall

BOUNDARY: Final = re.compile(rb'multipart/form-data\s*;.*?boundary=(?:"([^"]{1,70})"|([^;\s]{1,70}))', re.I | re.S)
DISPOSITION: Final = re.compile(rb"content-disposition[ \t]*:", re.I)
NAME: Final = re.compile(rb';[ \t]*name=(?:"([^"\\]*)"|([^\s";\\]+))', re.I)
FILE_NAME: Final = re.compile(rb';[ \t]*filename=(?:"([^"]*)"|([^\s";]+))', re.I)
ENCODED: Final = re.compile(rb"content-transfer-encoding", re.I)
UNCLEAR: Final = re.compile(rb"\\|(?:^|\r\n)[ \t]|;[ \t]*(?:file)?name\*|(?<!\r)\n|\r(?!\n)|\0", re.I)
MAX_HEAD_BYTES: Final = 8192
MAX_VALUE_BYTES: Final = 1024
POLICY_FIELDS: Final = (b"model", b"stream")
CONTENT, DELIMITER, HEAD, END = range(4)


class Form:
    """Where the model's name is in a body, so that another one can be put there."""

    def __init__(self, call: Call, start: int, end: int) -> None:
        self.call = call
        self.start = start
        self.end = end

    def with_model(self, body: bytes, model: str) -> bytes:
        return body[: self.start] + model.encode() + body[self.end :]


class FilePart:
    """The part ``file`` of a form, handed on as it comes."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self.write = write
        self.name = b""
        self.begun = False

    def begin(self, disposition: bytes) -> None:
        """Raises Rejected when it is no file, or the second one."""
        found = FILE_NAME.search(disposition)
        if found is None or self.begun:
            raise _unclear("The field 'file' must be there once, with a filename.")
        self.name, self.begun = found[1] or found[2] or b"", True


class FormReader:
    """Reads a form as it comes; keeps nothing but the values of ``fields``, lower-case names."""

    def __init__(
        self, content_type: bytes, fields: tuple[bytes, ...] = POLICY_FIELDS, file: FilePart | None = None
    ) -> None:
        self._fields = fields
        self._file = file
        found = BOUNDARY.match(content_type)
        if found is None or content_type.lower().count(b"boundary=") != 1:
            raise Rejected("invalid_request", "The multipart body has no boundary, or more than one.")
        self._delimiter = b"\r\n--" + (found[1] or found[2])
        self._buffer = b"\r\n"  # so that the first delimiter is like all others
        self._at = -2  # where in the body the buffer begins
        self._state = CONTENT
        self._field = ""
        self._started = False
        self._values: dict[str, tuple[int, int, bytes]] = {}

    @property
    def complete(self) -> bool:
        return self._state == END

    def feed(self, data: bytes) -> None:
        """The next bytes of the body. Raises Rejected."""
        if self._state == END:
            return
        self._buffer += data
        while self._step():
            pass

    def value(self, field: str) -> bytes | None:
        """Of a field that has been read."""
        return self._values[field][2] if field in self._values else None

    def form(self) -> Form | None:
        """None as long as the model is not known. Raises Rejected when it is no name."""
        model = self._values.get("model")
        if model is None:
            return None
        start, end, value = model
        stream = self._values["stream"][2].lower() == b"true" if "stream" in self._values else None
        try:
            return Form(Call(TextCall(value.decode(), stream), in_form=True), start, end)
        except UnicodeDecodeError:
            raise Rejected("invalid_request", "The form's model is not UTF-8.", param="model") from None

    def _step(self) -> bool:
        """One step on. False: more has to come."""
        if self._state == CONTENT:
            return self._content()
        if self._state == DELIMITER:
            return self._after_delimiter()
        return self._state == HEAD and self._head()

    def _content(self) -> bool:
        end = self._buffer.find(self._delimiter)
        if end > 0 and not self._started:
            raise _unclear("It does not begin with its boundary.")
        if end < 0:
            self._skip()
            return False
        if self._field == "file" and self._file is not None:
            self._file.write(self._buffer[:end])
        elif self._field:
            self._keep(end)
        self._take(end + len(self._delimiter))
        self._started, self._state = True, DELIMITER
        return True

    def _skip(self) -> None:
        """Forget what cannot be part of a delimiter any more."""
        spare = len(self._buffer) - len(self._delimiter) + 1
        if not self._started and spare > 0:
            raise _unclear("It does not begin with its boundary.")
        if self._field == "file" and self._file is not None:
            if spare > 0:
                self._file.write(self._buffer[:spare])
                self._take(spare)
        elif self._field:
            if spare > MAX_VALUE_BYTES:
                raise _unclear(f"The field {self._field!r} is too long.")
        elif spare > 0:
            self._take(spare)

    def _keep(self, end: int) -> None:
        if end > MAX_VALUE_BYTES:
            raise _unclear(f"The field {self._field!r} is too long.")
        self._values[self._field] = self._at, self._at + end, self._buffer[:end]

    def _after_delimiter(self) -> bool:
        ending = self._buffer[:2]
        if len(ending) < 2:
            return False
        if ending == b"--":
            self._state, self._buffer = END, b""
            return False
        if ending != b"\r\n":
            raise _unclear("A boundary is followed by something else.")
        self._take(2)
        self._state = HEAD
        return True

    def _head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES + 4)
        if end < 0:
            if len(self._buffer) > MAX_HEAD_BYTES:
                raise _unclear("The head of a part is too long.")
            return False
        self._field = self._name(self._buffer[:end])
        self._take(end + 4)
        self._state = CONTENT
        return True

    def _name(self, head: bytes) -> str:
        """The field's name where it is one of ours, else empty."""
        lines = [line for line in head.split(b"\r\n") if DISPOSITION.match(line)]
        names = NAME.findall(lines[0]) if len(lines) == 1 else []
        if len(names) != 1 or UNCLEAR.search(head):
            raise _unclear("The head of a part is not clear.")
        name = names[0][0] or names[0][1]
        if name == b"file" and self._file is not None:
            self._file.begin(lines[0])
            return "file"
        if name.lower() not in self._fields:
            return ""
        known, as_file = name.decode() in self._values, b"filename" in lines[0].lower()
        if known or as_file or name != name.lower() or ENCODED.search(head):
            raise _unclear(f"The field {name.decode()!r} must be there once, as plain text.")
        return str(name.decode())

    def _take(self, size: int) -> None:
        self._buffer = self._buffer[size:]
        self._at += size


def is_form(content_type: bytes) -> bool:
    return content_type[:19].lower() == b"multipart/form-data"


def parse(content_type: bytes, body: bytes) -> Form:
    """Find "model" and "stream" in a whole body. Raises Rejected when there is no model."""
    reader = FormReader(content_type)
    reader.feed(body)
    return whole(reader)


def whole(reader: FormReader) -> Form:
    """The form that has been read to its end. Raises Rejected when there is no model, or no end."""
    if not reader.complete:
        raise _unclear("It breaks off.")
    form = reader.form()
    if form is None:
        raise Rejected("invalid_request", "The form has no field 'model'.", param="model")
    return form


def _unclear(why: str) -> Rejected:
    return Rejected("invalid_request", f"The form cannot be read. {why}")
