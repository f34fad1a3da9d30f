"""Synonyms by hand: their inflections, and the simple part-of-speech check."""

import pytest

from detect.adversarial.thesaurus import form_of, function_words, may_replace, same_lemma, synonyms
from detect.adversarial.word_lists import word_rows
from detect.adversarial.words import words_of


@pytest.mark.parametrize(
    ("word", "form"),
    [
        ("walked", "past"),
        ("went", "past"),
        ("written", "participle"),
        ("need", "base"),
        ("children", "plural"),
        ("results", "plural"),
        ("process", "base"),
        ("famous", "base"),
        ("running", "ing"),
        ("morning", "base"),
        ("quickly", "ly"),
        ("family", "base"),
        ("big", "base"),
    ],
)
def test_the_form_of_a_word_is_its_endings_or_a_listed_one(word: str, form: str) -> None:
    assert form_of(word) == form


@pytest.mark.parametrize(
    ("word", "other"),
    [
        ("showed", "demonstrated"),
        ("studies", "investigations"),
        ("planned", "intended"),
        ("stopping", "halting"),
        ("permits", "allows"),
        ("permitted", "allowed"),
        ("carries", "transports"),
        ("analyzing", "examining"),
        ("however", "nevertheless"),
    ],
)
def test_synonyms_come_in_the_form_of_the_word(word: str, other: str) -> None:
    assert other in synonyms(word)
    assert word in synonyms(other)


def test_a_word_is_no_synonym_of_itself_or_of_its_opposite() -> None:
    assert synonyms("xyzzy") == []
    words = {word for row in word_rows("synonyms") for word in row[1:]}
    assert [word for word in words if word in synonyms(word)] == []
    assert "poor" not in synonyms("good")


def test_every_synonym_is_one_word_in_lower_case() -> None:
    words = {other for row in word_rows("synonyms") for word in row[1:] for other in (word, *synonyms(word))}
    assert [word for word in words if [found.text for found in words_of(word)] != [word] or not word.islower()] == []


def test_irregular_words_have_no_forms_made_by_rule() -> None:
    assert [word for word in ("thinked", "childs", "builded") if synonyms(word)] == []
    assert not {"thinked", "childs"} & {*synonyms("believed"), *synonyms("kids")}


@pytest.mark.parametrize(
    ("word", "other", "expected"),
    [
        ("big", "large", True),
        ("big", "small", False),  # an opposite
        ("finite", "infinite", False),
        ("walk", "strolled", False),  # another form
        ("important", "importance", False),  # made of each other
        ("big", "the", False),  # grammar
        ("big", "big", False),
        ("written", "composed", True),
        ("written", "wrote", False),
    ],
)
def test_what_may_replace_what(word: str, other: str, expected: bool) -> None:
    assert may_replace(word, other) is expected
    assert may_replace(other, word) is expected


def test_words_of_one_stem_share_their_beginning() -> None:
    assert same_lemma("study", "studies")
    assert not same_lemma("consider", "constitute")


def test_function_words_hold_no_words_of_the_thesaurus_that_carry_meaning() -> None:
    assert {"the", "of", "would", "thirty"} <= function_words()
    nouns = {word for row in word_rows("synonyms") if row[0] == "n" for word in row[1:]}
    assert nouns & function_words() == set()
