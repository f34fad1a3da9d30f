"""Slips of the pen and look-alike letters."""

import random

import pytest

from detect.adversarial.perturbations import lookalike, slip
from detect.adversarial.word_lists import word_list
from tests.detect.adversarial.attacked import attacked

WORDS = ["several", "people", "were", "walking", "along", "these", "muddy", "roads", "when", "rain", "fell", "down"]


@pytest.mark.parametrize("word", ["that", "noon", "balloon", "naïve", "Saturday's", "日本語学"])
def test_a_slip_is_one_edit_inside_the_word(word: str) -> None:
    for seed in range(60):
        found = slip(word, random.Random(seed))
        assert found != word
        assert (found[0], found[-1]) == (word[0], word[-1])
        assert abs(len(found) - len(word)) <= 1
        if len(found) == len(word):
            different = [a != b for a, b in zip(word, found, strict=True)]
            assert sum(different) == 1 or sorted(found) == sorted(word)


def test_mistyped_letters_are_neighbours_on_the_keyboard() -> None:
    keys = word_list("keyboard")
    assert sorted(keys) == [chr(code) for code in range(ord("a"), ord("z") + 1)]
    assert all(len(key) == 1 and letter in keys[key] for letter, others in keys.items() for key in others)


def test_a_lookalike_has_one_letter_of_another_script() -> None:
    twins = word_list("homoglyphs")
    for seed in range(20):
        found = lookalike("people", random.Random(seed))
        assert found is not None
        ((before, after),) = [(a, b) for a, b in zip("people", found, strict=True) if a != b]
        assert after in twins[before]
    assert lookalike("fkr", random.Random(0)) is None


@pytest.mark.parametrize(("strength", "changed"), [(0.1, 1), (0.5, 6), (1.0, 12)])
def test_a_share_of_the_words_has_a_slip(strength: float, changed: int) -> None:
    found = attacked("character", " ".join(WORDS), strength)[0].split()
    assert sum(a != b for a, b in zip(WORDS, found, strict=True)) == changed


def test_words_of_fewer_than_four_letters_have_no_slips() -> None:
    assert attacked("character", "It is in an old oak, 1234 now.") == ["It is in an old oak, 1234 now."]
