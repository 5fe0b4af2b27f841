"""Personal data and secrets: a pattern finds candidates, a check says whether a candidate is one and where it ends.

Sources: Luhn ISO/IEC 7812-1, IBAN check digits ISO 13616 (mod 97-10 of ISO 7064), SSN areas and groups that are never
issued by the US Social Security Administration, key shapes as published by their vendors.
"""

from collections.abc import Callable
from ipaddress import ip_address

import re2

from gateway.core.guard.patterns import Pattern

NO = -1
WORD_REST = re2.compile("[0-9A-Za-z]*")
# Where a candidate that begins at ``start`` ends, given that the pattern matched up to ``end``; NO when it is none.
Check = Callable[[bytes, int, int], int]


class Detector:
    """Finds one kind of thing in a text. ``label`` takes its place when it is redacted."""

    __slots__ = ("check", "label", "pattern")

    def __init__(self, label: str, pattern: Pattern, check: Check) -> None:
        self.label = label
        self.pattern = pattern
        self.check = check

    def spans(self, data: bytes, start: int) -> list[tuple[int, int]]:
        """What is found in UTF-8 from ``start`` on, as offsets, in order, without overlap."""
        found = []
        match = self.pattern.first(data, start)
        while match is not None:
            end = self.check(data, *match)
            if end != NO:
                found.append((match[0], end))
            match = self.pattern.first(data, _beyond(data, match[0]) if end == NO else end)
        return found


def _beyond(data: bytes, start: int) -> int:
    """Where the next candidate may begin after one that was none: it can hide another, but not in the same word."""
    return int(WORD_REST.match(data, start + 1).end())


def anywhere(data: bytes, start: int, end: int) -> int:
    return end


def whole_words(data: bytes, start: int, end: int) -> int:
    """The match must not be a part of a longer word or number."""
    before = data[max(start - 4, 0) : start].decode("utf-8", "ignore")[-1:]
    after = data[end : end + 4].decode("utf-8", "ignore")[:1]
    inside = (before.isalnum() and _alnum_at(data, start)) or (after.isalnum() and _alnum_before(data, end))
    return NO if inside else end


def _alnum_at(data: bytes, at: int) -> bool:
    return data[at : at + 4].decode("utf-8", "ignore")[:1].isalnum()


def _alnum_before(data: bytes, end: int) -> bool:
    return data[max(end - 4, 0) : end].decode("utf-8", "ignore")[-1:].isalnum()


def _shortened(valid: Callable[[str], bool]) -> Check:
    """Tries the candidate, then without its last group and so on: what follows a number may look like a part of it."""

    def check(data: bytes, start: int, end: int) -> int:
        while end > start:
            if valid(data[start:end].decode("ascii", "replace")) and whole_words(data, start, end) != NO:
                return end
            end = max(data.rfind(b" ", start, end), data.rfind(b"-", start, end))
        return NO

    return check


DOUBLED = str.maketrans("0123456789", "0246813579")


def luhn(digits: str) -> bool:
    """Check digit of payment cards."""
    return (sum(map(int, digits[-1::-2])) + sum(map(int, digits[-2::-2].translate(DOUBLED)))) % 10 == 0


def _card(text: str) -> bool:
    digits = text.replace(" ", "").replace("-", "")
    return 13 <= len(digits) <= 19 and digits[0] in "23456" and luhn(digits)


AS_NUMBERS = {ord(letter): str(number) for number, letter in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZ", 10)}
# Characters of an IBAN by country (IBAN registry of SWIFT).
_COUNTRIES = {
    15: "NO", 16: "BE", 18: "DK FI FK FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK", 21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM SO TL", 24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "LY PT ST", 26: "IS TR", 27: "BI DJ FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
    29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC", 32: "LC", 33: "RU",
}  # fmt: skip
IBAN_LENGTHS = {country: length for length, countries in _COUNTRIES.items() for country in countries.split()}


def iban(compact: str) -> bool:
    """Check digits of an IBAN without spaces."""
    return int((compact[4:] + compact[:4]).translate(AS_NUMBERS)) % 97 == 1


def _account(data: bytes, start: int, end: int) -> int:
    length = IBAN_LENGTHS.get(data[start : start + 2].decode("ascii").upper())
    compact = data[start:end].replace(b" ", b"")
    if length is None or len(compact) < length or not iban(compact[:length].decode("ascii").upper()):
        return NO
    end = start + length
    while len(data[start:end].replace(b" ", b"")) < length:
        end += 1
    return whole_words(data, start, end)


def _ssn(text: str) -> bool:
    area, group, serial = text[:3], text[4:6], text[7:]
    return len(serial) == 4 and area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def _phone(text: str) -> bool:
    """E.164: at most 15 digits. Fewer than 8 are more often something else."""
    return 8 <= sum(c.isdigit() for c in text) <= 15


WITHIN_ADDRESS = frozenset(bytes([c]) for c in b":.0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_")


def _address(data: bytes, start: int, end: int) -> int:
    if end - start < 3 or whole_words(data, start, end) == NO or data[max(start - 1, 0) : start] in WITHIN_ADDRESS:
        return NO
    try:
        ip_address(data[start:end].decode("ascii"))
    except ValueError:
        return NO
    return end


_SECRETS = (
    r"sk-[A-Za-z0-9_-]{20,}", r"(?:AKIA|ASIA)[A-Z0-9]{16}", r"gh[oprsu]_[A-Za-z0-9]{36,}",
    r"github_pat_[A-Za-z0-9_]{22,}", r"glpat-[A-Za-z0-9_-]{20,}", r"AIza[A-Za-z0-9_-]{35}",
    r"xox[abprs]-[A-Za-z0-9-]{10,}", r"[rs]k_(?:live|test)_[A-Za-z0-9]{16,}", r"hf_[A-Za-z0-9]{30,}",
    r"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}",
    r"-----BEGIN (?:[A-Z]{1,16} ){0,3}PRIVATE KEY-----[A-Za-z0-9+/=\s]*(?:-----END [A-Z ]{0,48}KEY-----)?",
)  # fmt: skip

_V4 = r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}"
_H = "[0-9A-Fa-f]{1,4}"

KINDS: dict[str, tuple[str, Check]] = {
    "email": (r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,190}\.[A-Za-z]{2,24}", whole_words),
    "phone": (
        r"\+\d{1,3}(?:[ .-]?\(?\d{1,5}\)?){2,6}|\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}[.-]\d{3}[.-]\d{4}",
        _shortened(_phone),
    ),
    "iban": (r"[A-Za-z]{2}\d{2} ?(?:[A-Za-z0-9]{4} ?){2,7}[A-Za-z0-9]{0,4}", _account),
    "credit_card": (
        r"\d{13,19}|\d{4}(?:[ -]\d{4}){3}(?:[ -]\d{3})?|\d{4}[ -]\d{6}[ -]\d{4,5}",
        _shortened(_card),
    ),
    "us_ssn": (r"\d{3}-\d{2}-\d{4}|\d{3} \d{2} \d{4}", _shortened(_ssn)),
    "ip_address": (f"{_V4}|{_H}(?::{_H}){{7}}|(?:{_H}(?::{_H}){{0,6}})?::(?:{_H}:){{0,6}}(?:{_V4}|{_H})?", _address),
    "secret": ("|".join(_SECRETS), whole_words),
}


def detector(kind: str) -> Detector:
    """Raises KeyError for a kind that there is not."""
    pattern, check = KINDS[kind]
    return Detector(kind, Pattern(pattern), check)
