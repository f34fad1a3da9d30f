"""Numbers, articles and paragraphs: what changes and what stays."""

import re

import pytest

from tests.detect.adversarial.attacked import attacked

NUMBERS = "In 2019, 3 men paid $1,250.50 for 0.5 acres; B2 and 007 stayed."


def test_digits_change_and_their_places_stay() -> None:
    found = attacked("number", NUMBERS)[0]
    assert re.sub(r"\d", "#", found) == re.sub(r"\d", "#", NUMBERS)
    before, after = (re.findall(r"\d+(?:[.,]\d+)*", text) for text in (NUMBERS, found))
    assert all(a != b for a, b in zip(before, after, strict=True))
    assert not after[0].startswith("0")


def test_digits_of_other_scripts_stay_of_their_script() -> None:
    (found,) = attacked("number", "٢٠٢٤ and २०२४")
    assert re.fullmatch("[٠-٩]{4} and [०-९]{4}", found)
    assert found.split()[0] != "٢٠٢٤"


def test_half_the_numbers_change() -> None:
    text = "10 20 30 40"
    found = attacked("number", text, 0.5)[0].split()
    assert sum(a != b for a, b in zip(text.split(), found, strict=True)) == 2


def test_articles_in_lower_case_go() -> None:
    text = "The man saw a dog, an owl and\nthe cat in vitamin a deficits; the-end, a"
    assert attacked("article_deletion", text) == ["The man saw dog, owl and\ncat in vitamin deficits; the-end, a"]


@pytest.mark.parametrize(("strength", "left"), [(0.25, 3), (0.5, 2), (1.0, 0)])
def test_a_share_of_the_articles_goes(strength: float, left: int) -> None:
    found = attacked("article_deletion", "see the cat, the dog, the cow, the hen", strength)[0]
    assert found.split().count("the") == left


def test_paragraphs_come_between_sentences_where_none_are() -> None:
    assert attacked("insert_paragraphs", "One. Two!\nThree?\n\nFour") == ["One.\n\nTwo!\n\nThree?\n\nFour"]


def test_paragraphs_leave_the_words_alone() -> None:
    text = "One is here. Two is there. Mr. Three is away. Four"
    found = attacked("insert_paragraphs", text, 0.34)[0]
    assert found.split() == text.split()
    assert found.count("\n\n") == 1
