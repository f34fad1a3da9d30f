"""RAID's attacks on characters: what changes and what stays."""

import unicodedata

import pytest

from detect.adversarial.word_lists import word_list
from tests.detect.adversarial.attacked import attacked

TEXT = "The quick brown fox jumps over the lazy dog; PACK MY BOX with 5 jugs."
TWINS = word_list("homoglyphs")


def test_every_twin_is_another_letter_of_the_same_case() -> None:
    for letter, twins in TWINS.items():
        assert letter.isascii()
        assert letter.isupper() == all(unicodedata.category(twin) == "Lu" for twin in twins)
        assert all(unicodedata.category(twin) in ("Lu", "Ll") and not twin.isascii() for twin in twins)


def test_homoglyphs_replace_letters_that_have_a_twin_and_nothing_else() -> None:
    found = attacked("homoglyph", TEXT)[0]
    assert len(found) == len(TEXT)
    for before, after in zip(TEXT, found, strict=True):
        assert after in TWINS[before] if before in TWINS else after == before


def test_half_the_homoglyphs_are_among_all_of_them() -> None:
    half, whole = attacked("homoglyph", TEXT, 0.5)[0], attacked("homoglyph", TEXT, 1.0)[0]
    changed = [index for index in range(len(TEXT)) if half[index] != TEXT[index]]
    assert len(changed) == (sum(character in TWINS for character in TEXT) + 1) // 2
    assert all(half[index] == whole[index] for index in changed)


def test_zero_width_spaces_follow_every_character() -> None:
    assert attacked("zero_width_space", "ab c") == ["a\u200bb\u200b \u200bc\u200b"]
    assert attacked("zero_width_space", TEXT, 0.3)[0].replace("\u200b", "") == TEXT


def test_first_letters_alone_change_their_case() -> None:
    assert attacked("upper_lower", "Don't stop the 3rd NASA, (naïve) 日本") == ["don't Stop The 3rd nASA, (Naïve) 日本"]


@pytest.mark.parametrize(("strength", "changed"), [(0.05, 1), (0.3, 3)])
def test_a_share_of_the_words_changes_its_case(strength: float, changed: int) -> None:
    text = "one two three four five six seven eight nine ten"
    found = attacked("upper_lower", text, strength)[0]
    assert sum(a != b for a, b in zip(text, found, strict=True)) == changed


def test_white_space_adds_a_space_for_a_share_of_the_words_beside_others() -> None:
    text = "one two three four five six seven\neight nine ten"
    found = attacked("whitespace", text, 0.2)[0]
    assert len(found) == len(text) + 2
    assert found.split() == text.split()
    assert "\n" in found


def test_a_text_without_spaces_gets_none() -> None:
    assert attacked("whitespace", "one\ntwo", 1.0) == ["one\ntwo"]
