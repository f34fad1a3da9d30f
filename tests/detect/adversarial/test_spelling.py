"""American to British: the list, each family of rules, and words that only look as if they followed one."""

import pytest

from detect.adversarial.spelling import british
from detect.adversarial.word_lists import word_list
from tests.detect.adversarial.attacked import attacked


@pytest.mark.parametrize(
    ("american", "expected"),
    [
        ("gray", "grey"),
        ("organization", "organisation"),
        ("emphasized", "emphasised"),
        ("analyzing", "analysing"),
        ("colorful", "colourful"),
        ("neighbor's", "neighbour's"),
        ("neighbor’s", "neighbour’s"),
        ("centered", "centred"),
        ("centerpiece", "centrepiece"),
        ("traveling", "travelling"),
        ("counselors", "counsellors"),
    ],
)
def test_each_family_has_its_british_spelling(american: str, expected: str) -> None:
    assert british(american) == expected


@pytest.mark.parametrize(
    "word",
    ["size", "prize", "seized", "capsizing", "funsize", "laboratory", "colorado", "glamorgan", "honorary", "humorous"],
)
def test_words_that_only_look_american_stay(word: str) -> None:
    assert british(word) is None


def test_no_british_spelling_has_another() -> None:
    assert [word for (word,) in word_list("british_spellings").values() if british(word)] == []


def test_case_is_kept_and_the_rest_of_the_text_too() -> None:
    found = attacked("alternative_spelling", "Color, COLOR and (gray) theaters:\n the same size, A.D. 2001.")
    assert found == ["Colour, COLOUR and (grey) theatres:\n the same size, A.D. 2001."]


def test_a_share_of_the_words_with_another_spelling_changes() -> None:
    found = attacked("alternative_spelling", "gray color of gray color", 0.5)[0].split()
    assert sum(word in ("grey", "colour") for word in found) == 2
