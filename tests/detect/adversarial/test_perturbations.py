"""Slips of the pen, look-alike letters, and what the attack on sentences makes of both."""

import random
from collections import Counter

import pytest

from detect.adversarial.attack import AttackMeans
from detect.adversarial.catalog import attack_named
from detect.adversarial.perturbations import lookalike, slip
from detect.adversarial.substitutes import Substitutes
from detect.adversarial.word_lists import word_list
from detect.adversarial.words import words_of
from tests.detect.adversarial.attacked import attacked, document
from tests.detect.adversarial.word_backbone import TEXT, word_backbone

WORDS = ["several", "people", "were", "walking", "along", "these", "muddy", "roads", "when", "rain", "fell", "down"]


@pytest.fixture(scope="module")
def means(tmp_path_factory: pytest.TempPathFactory) -> AttackMeans:
    backbone = word_backbone(tmp_path_factory.mktemp("words"))
    return AttackMeans(backbone=lambda: backbone)


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


def kind_of(word: str, new: str, swaps: set[str]) -> str:
    """Which change of the attack on sentences this is; each is held to what it may do."""
    if new in swaps:
        return "swap"
    if " " in new:
        left, right = new.split(" ")
        assert left
        assert right
        assert left + right == word
        return "space"
    if not new.isascii():
        ((before, after),) = [(a, b) for a, b in zip(word, new, strict=True) if a != b]
        assert after in word_list("homoglyphs")[before]
        return "lookalike"
    assert new != word
    assert (new[0], new[-1]) == (word[0], word[-1])
    assert abs(len(new) - len(word)) <= 1
    return "slip"


def changes_of(text: str, means: AttackMeans, seeds: int) -> list[tuple[str, str, str]]:
    """The kind, the old and the new of the one word that the attack on sentences changes, for each of some seeds."""
    attack, words = attack_named("sentence", means), words_of(text)
    swaps = Substitutes(means.backbone()).of_words(text, words)
    found = []
    for seed in range(seeds):
        (after,) = attack.apply([document(text)], 1 / len(words), seed)
        ((place, new),) = [  # the one word whose change explains the whole text: all else is what it was
            (place, after.text[word.start : len(after.text) - len(text) + word.end])
            for place, word in enumerate(words)
            if after.text.startswith(text[: word.start]) and after.text.endswith(text[word.end :])
        ]
        found.append((kind_of(words[place].text, new, set(swaps.get(place, {}))), words[place].text, new))
    return found


def test_sentence_level_changes_one_word_in_four_ways_and_leaves_all_else(means: AttackMeans) -> None:
    found = changes_of(TEXT.replace(". ", ".\n\n  "), means, 300)
    kinds = {word: {kind for kind, other, _ in found if other == word} for _, word, _ in found}
    assert kinds == {
        "walked": {"slip", "space", "lookalike", "swap"},
        "home": {"slip", "space", "lookalike", "swap"},
        "quickly": {"slip", "space", "lookalike", "swap"},
        "film": {"slip", "space", "lookalike", "swap"},
        "tree": {"slip", "space", "lookalike"},
    }
    assert {(word, new) for kind, word, new in found if kind == "swap"} >= {("film", "movie"), ("quickly", "rapidly")}


@pytest.mark.parametrize(
    ("word", "expected"), [("film", ["lookalike", "slip", "space", "swap"]), ("brrk", ["slip", "space"])]
)
def test_each_way_that_a_word_has_is_as_likely_as_the_others(
    word: str, expected: list[str], means: AttackMeans
) -> None:
    counts = Counter(kind for kind, _, _ in changes_of(word, means, 400))
    assert sorted(counts) == expected
    # Within four standard deviations of an equal share, at most 4 * sqrt(400 * 0.5 * 0.5).
    assert all(abs(count - 400 / len(expected)) < 40 for count in counts.values())


def test_sentence_level_changes_a_share_of_all_words_where_as_many_are_long_enough(means: AttackMeans) -> None:
    words = ["several", "people", "were", "walking", "in", "an", "old", "wet", "oak", "of"]
    for strength, most in ((0.1, 1), (0.3, 3), (1.0, 4)):
        found = attacked("sentence", "; ".join(words), strength, means=means)[0].split("; ")
        assert sum(a != b for a, b in zip(words, found, strict=True)) == most
