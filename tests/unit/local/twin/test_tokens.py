from foundry_local.twin.tokens import Filler, count_tokens, seed_of, split_tokens
from hypothesis import given
from hypothesis import strategies as st


@given(st.text(max_size=200))
def test_tokens_cover_the_text(text: str) -> None:
    assert "".join(split_tokens(text)) == text
    assert count_tokens(text) == len(list(split_tokens(text)))


def test_prose_has_about_one_and_a_third_tokens_per_word() -> None:
    prose = "The scheduler admits waiting requests while the budget of one engine iteration allows it, oldest first."
    assert 1.1 < count_tokens(prose) / len(prose.split()) < 1.8


@given(st.integers(0, 2**32), st.integers(1, 300))
def test_generated_text_counts_as_many_tokens_as_were_generated(seed: int, tokens: int) -> None:
    filler = Filler(seed)
    pieces = [filler.next() for _ in range(tokens)]
    assert count_tokens("".join(pieces)) == tokens
    assert all(piece.isascii() and '"' not in piece and "\\" not in piece for piece in pieces), "needs no JSON escapes"
    assert not pieces[0].startswith(" ")


def test_the_same_question_has_the_same_answer() -> None:
    assert seed_of("a", 1) == seed_of("a", 1) != seed_of("a", 2)
    first, second = Filler(seed_of("a", 1)), Filler(seed_of("a", 1))
    assert [first.next() for _ in range(50)] == [second.next() for _ in range(50)]
