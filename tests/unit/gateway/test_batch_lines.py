"""The input of batches, which anybody may have written."""

import json
from typing import Any

import pytest
from gateway.batch_lines import MAX_ERRORS, MAX_LINE_BYTES, MAX_LINES, Checker, read, whole_lines
from hypothesis import given, settings
from hypothesis import strategies as st

CHAT = "/v1/chat/completions"


def line(custom_id: Any = "a", **changes: Any) -> bytes:
    asked = {"custom_id": custom_id, "method": "POST", "url": CHAT, "body": {"model": "m", "extra": 1}}
    return json.dumps(asked | changes).encode()


def checked(content: bytes, size: int = 1000) -> Checker:
    checker = Checker(CHAT)
    for start in range(0, len(content), size):
        checker.feed(content[start : start + size])
    checker.end()
    return checker


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (line("a") + b"\n" + line("a"), "duplicate_custom_id"),
        (line(""), "invalid_custom_id"), (line("x" * 513), "invalid_custom_id"), (line(7), "invalid_request"),
        (line(method="GET"), "invalid_method"), (line(url="/v1/embeddings"), "invalid_url"),
        (line(url=CHAT + "/../x"), "invalid_url"), (line(body={"model": 1}), "invalid_request"),
        (line(body=[]), "invalid_request"), (line(body={"model": "m", "stream": True}), "invalid_request"),
        (b"{", "invalid_json_line"), (b"[" * 100_000, "invalid_request"), (b"\xff\xfe", "invalid_json_line"),
        (line(body={"model": "m"})[:-2] + b',"x":' + b"[" * 100_000, "invalid_json_line"),
        (b'{"custom_id":"\xff"}', "invalid_request"), (b"\0", "invalid_json_line"), (b"1", "invalid_request"),
        (b"", "empty_file"), (b" \n\r\n\t", "empty_file"),
    ],
    ids=lambda value: value if isinstance(value, str) else str(len(value)),
)  # fmt: skip
def test_what_is_not_sound_is_found(content: bytes, code: str) -> None:
    [error] = checked(content).errors
    assert error["code"] == code and error["message"]


def test_blank_lines_count_as_lines_and_not_as_requests() -> None:
    checker = checked(b"\n" + line("a") + b"\r\n\n" + line("b") + b"\n{")
    assert checker.total == 3 and [error["line"] for error in checker.errors] == [5]


def test_a_line_without_end_is_given_up_early() -> None:
    checker = Checker(CHAT)
    pieces = 0
    while not checker.hopeless:
        checker.feed(b"x" * (1 << 20))
        pieces += 1
    checker.end()
    assert pieces == MAX_LINE_BYTES // (1 << 20) + 1 and checker.errors[0]["code"] == "line_too_long"


def test_too_many_lines_and_too_many_errors_are_given_up() -> None:
    checker = Checker(CHAT)
    for number in range(0, MAX_LINES + 1000, 1000):
        checker.feed(b"".join(line(str(number + one)) + b"\n" for one in range(1000)))
    assert checker.hopeless
    checker.end()
    assert [error["code"] for error in checker.errors] == ["too_many_tasks"]
    assert checked(b"{\n" * 1000).hopeless and len(checked(b"{\n" * 1000).errors) == MAX_ERRORS


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([b"", b" ", b"a", b"bb\r"]), max_size=6), st.booleans(), st.integers(1, 9))
def test_pieces_hold_the_lines_of_the_whole(parts: list[bytes], ends_with_break: bool, size: int) -> None:
    content = b"\n".join(parts) + (b"\n" if ends_with_break else b"")
    found, start = [], 0
    while start < len(content):
        piece = content[start : start + size]
        is_end = start + len(piece) == len(content)
        taken = 0
        for one, after in whole_lines(piece, is_end):
            found.append(one)
            taken = after
        size = size if taken else size + 1
        start = len(content) if is_end else start + taken
    assert found == [one.strip() for one in parts if one.strip()]


def test_a_body_stays_as_it_was_written() -> None:
    body = b'{"model":"m","seed":12345678901234567890123,"temperature":0.10,"x":{"b":1,"a":2}}'
    whole, facts = read(line("a", body=0)[:-2] + body + b"}")
    assert bytes(whole.body) == body and facts.model == "m"


def test_a_blank_line_hides_nothing_that_is_behind_it() -> None:
    checker = checked(line("a") + b"\n" + b" " * (MAX_LINE_BYTES + 1) + b"\nno request\n", 1 << 20)
    assert checker.errors[0]["code"] == "line_too_long"


def test_millions_of_blank_lines_are_given_up() -> None:
    checker = Checker(CHAT)
    pieces = 0
    while not checker.hopeless:
        checker.feed(b"\n" * 10_000)
        pieces += 1
    checker.end()
    assert (pieces, [error["code"] for error in checker.errors]) == (11, ["too_many_tasks"])


def test_what_comes_after_too_many_lines_is_not_judged() -> None:
    checker = Checker(CHAT)
    checker.feed(b"".join(line(str(number)) + b"\n" for number in range(MAX_LINES + 1)) + b"{half a li")
    checker.end()
    assert [error["code"] for error in checker.errors] == ["too_many_tasks"]
