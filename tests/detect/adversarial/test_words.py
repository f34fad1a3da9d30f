"""Words of a text, and how many a strength means."""

import random
from itertools import pairwise

import pytest

from detect.adversarial.words import chosen, how_many, like, with_words, words_of


def test_words_are_runs_of_letters_with_apostrophes_inside_and_no_digits_beside() -> None:
    text = "Don’t 'stop' the 3rd naïve co-op, B2B_x O'Neil's!"
    assert [word.text for word in words_of(text)] == ["Don’t", "stop", "the", "naïve", "co", "op", "O'Neil's"]
    assert all(text[word.start : word.end] == word.text for word in words_of(text))


def test_changed_words_stand_where_the_old_ones_did() -> None:
    text = " One, two\nthree. "
    words = words_of(text)
    assert with_words(text, words, {2: "drei", 0: "Eins"}) == " Eins, two\ndrei. "
    assert with_words(text, words, {}) == text


@pytest.mark.parametrize(
    ("pattern", "word", "expected"),
    [("The", "big", "Big"), ("THE", "big", "BIG"), ("the", "big", "big"), ("A", "big", "Big"), ("the", "I", "I")],
)
def test_case_is_taken_over(pattern: str, word: str, expected: str) -> None:
    assert like(pattern, word) == expected


@pytest.mark.parametrize(("count", "strength", "expected"), [(10, 0.05, 1), (9, 0.05, 0), (3, 0.5, 2), (3, 1.0, 3)])
def test_a_share_is_rounded_half_up(count: int, strength: float, expected: int) -> None:
    assert how_many(count, strength) == expected


def test_a_smaller_share_is_part_of_a_larger_one_and_in_order() -> None:
    things = list(range(20))
    shares = [chosen(random.Random(0), things, strength) for strength in (0.0, 0.2, 0.6, 1.0)]
    assert [len(share) for share in shares] == [0, 4, 12, 20]
    assert all(share == sorted(share) for share in shares)
    assert all(set(a) <= set(b) for a, b in pairwise(shares))
