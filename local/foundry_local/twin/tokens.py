"""A plain, deterministic stand-in for a tokenizer, and the filler text that the twin generates.

Counting rule: a token is an optional leading space with up to six letters, or up to three digits, or a run of
blanks, or any other single character. English prose comes to about 1.3 tokens per word, as with real BPE
vocabularies; other scripts count roughly one token per one to two characters. Every word of the generated filler is
exactly one token by this rule, so counting generated text gives the number of generated tokens.
"""

import re
import zlib
from collections.abc import Iterator

_TOKEN = re.compile(r" ?[A-Za-z]{1,6}|\d{1,3}| ?[^\W\d_a-zA-Z]{1,2}|\s+|[^\s]")

_VOCABULARY = """
the a model of plan to serve and load with token batch for time is on rate queue cost per node from device
memory in cache step by that each while latent until budget one more when over into across at its whole small
large steady quick under above share split first next last reply answer text word line page table chart curve
value range mean tail peak idle ready warm cold start stop keep move read write copy send wait grow shrink hold
drop turn pass reach cover match meet miss beat test check count weigh order sort group pair chain block unit
part piece layer width depth size scale speed pace pulse beat flow stream signal noise trend season day night
hour week clear plain simple exact rough smooth sharp even odd both either often never always again still just
only about after before since then than also yet
"""
_WORDS = tuple(_VOCABULARY.split())


def count_tokens(text: str) -> int:
    """Number of tokens in a text by the rule above."""
    return sum(1 for _ in _TOKEN.finditer(text))


def split_tokens(text: str) -> Iterator[str]:
    return (match.group() for match in _TOKEN.finditer(text))


def seed_of(text: str, seed: int | None) -> int:
    """A stable seed: the same prompt and request seed give the same answer."""
    return zlib.crc32(text.encode("utf-8", "surrogatepass"), seed or 0)


class Filler:
    """Endless deterministic text, one token per call: sentences of five to twelve words."""

    __slots__ = ("_lead", "_left", "_state")

    def __init__(self, seed: int) -> None:
        self._state = (seed * 2654435761 + 97) & 0xFFFFFFFF
        self._left = -1
        self._lead = ""

    def next(self) -> str:
        self._state = (self._state * 1664525 + 1013904223) & 0xFFFFFFFF
        draw = self._state >> 8
        word = _WORDS[draw % len(_WORDS)]
        if self._left > 0:
            self._left -= 1
            return f" {word}"
        if self._left == 0:
            self._left = -1
            return "."
        self._left = 4 + (draw >> 10) % 8
        lead, self._lead = self._lead, " "
        return lead + word.capitalize()
