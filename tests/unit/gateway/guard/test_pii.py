"""Personal data: what is found, and what only looks like it. Numbers are published test numbers or made to fail."""

import pytest
from gateway.core.guard.pii import KINDS, detector, iban, luhn
from hypothesis import given
from hypothesis import strategies as st

FOUND = {
    "email": ["joe.doe+x@mail.example.co.uk", "a@b.io"],
    "phone": ["+41 44 668 18 00", "(555) 123-4567", "555-123-4567", "+442079460958"],
    "iban": ["GB82 WEST 1234 5698 7654 32", "DE89370400440532013000", "NO9386011117947", "gb82west12345698765432"],
    "credit_card": ["4111 1111 1111 1111", "5500-0000-0000-0004", "378282246310005", "3782 822463 10005"],
    "us_ssn": ["123-45-6789"],
    "ip_address": ["10.0.0.1", "2001:db8::1", "::1", "::ffff:1.2.3.4", "2001:db8:0:0:1:0:0:1"],
    "secret": [
        "sk-abcdefghijklmnopqrstuvwx", "AKIAIOSFODNN7EXAMPLE", "ghp_" + "a1" * 18, "xoxb-1234567890-abc",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIabc\n-----END RSA PRIVATE KEY-----",
    ],
}  # fmt: skip
NOT_FOUND = {
    "email": ["joe@", "@example.com", "joe at example.com"],
    "phone": ["2024-05-01", "+1 2", "12345678"],
    "iban": ["GB82 WEST 1234 5698 7654 33", "DE88370400440532013000", "DE8937040044053201300",
             "QQ44370400440532013000"],
    "credit_card": ["4111 1111 1111 1112", "1234567812345670", "41111111111111111111111111"],
    "us_ssn": ["000-12-1234", "666-12-1234", "900-12-1234", "123-00-1234", "123-45-0000", "1123-45-6789"],
    "ip_address": ["999.1.1.1", "12:30:45", "std::add", "::", "1.2.3"],
    "secret": ["sk-short", "xAKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNN7EXAMPLEX"],
}  # fmt: skip


def found_in(kind: str, text: str) -> list[str]:
    data = text.encode()
    return [data[start:end].decode() for start, end in detector(kind).spans(data, 0)]


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in FOUND.items() for text in texts])
def test_what_is_found_between_other_words(kind: str, text: str) -> None:
    assert found_in(kind, f"é it is {text}, really; {text} – yes") == [text, text]


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in NOT_FOUND.items() for text in texts])
def test_what_only_looks_like_it(kind: str, text: str) -> None:
    assert found_in(kind, f"it is {text} really") == []


def test_every_kind_has_examples() -> None:
    assert set(FOUND) == set(NOT_FOUND) == set(KINDS)


def test_a_number_is_found_behind_and_before_others() -> None:
    assert found_in("credit_card", "12 4111111111111111") == ["4111111111111111"]
    assert found_in("credit_card", "4111 1111 1111 1111 12") == ["4111 1111 1111 1111"]
    assert found_in("iban", "DE89370400440532013000 and") == ["DE89370400440532013000"]


@given(st.integers(10**11, 10**18 - 1))
def test_one_wrong_digit_breaks_luhn(number: int) -> None:
    good = next(f"{number}{digit}" for digit in range(10) if luhn(f"{number}{digit}"))
    wrong = str((int(good[3]) + 1) % 10)
    assert not luhn(good[:3] + wrong + good[4:])


@given(st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", min_size=11, max_size=30), st.integers(0, 29))
def test_one_wrong_character_breaks_an_iban(account: str, at: int) -> None:
    digits = next(f"{n:02d}" for n in range(2, 99) if iban(f"CH{n:02d}{account}"))
    at %= len(account)
    kind = "0123456789" if account[at].isdigit() else "ABCDEFGHIJKLMNOPQRSTUVWXYZ"  # a letter counts as two digits
    other = kind[(kind.index(account[at]) + 1) % len(kind)]
    assert not iban(f"CH{digits}{account[:at]}{other}{account[at + 1 :]}")
