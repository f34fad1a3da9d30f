"""Misspellings: which there are, and that the most probable words get them."""

from pathlib import Path

import numpy as np
import pytest

from detect.adversarial.attack import AttackMeans
from detect.adversarial.misspelling import misspellings
from detect.adversarial.word_lists import word_rows
from detect.adversarial.word_model import read_words
from detect.adversarial.words import words_of
from features.backbone import Backbone
from features.extractor import Extractor
from tests.detect.adversarial.attacked import attacked
from tests.features.test_backbone import load
from tests.features.tiny_models import SENTENCES, write_tiny_model

TEXT = "Their government\n will definitely receive the money  because it is necessary, naïve and possible."


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load(write_tiny_model(tmp_path_factory.mktemp("llama")))


@pytest.fixture(scope="module")
def means(backbone: Backbone) -> AttackMeans:
    return AttackMeans(backbone=lambda: backbone)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("definitely", ("definately", "definatly")),
        ("february", ("febuary",)),
        ("colleagues", ("collegues",)),
        ("retrieve", ("retreive",)),
        ("connecting", ("conecting",)),
        ("resistance", ("resistence",)),
        ("terrible", ("terible",)),
        ("zebra", ()),
        ("café", ()),
    ],
)
def test_words_have_listed_or_rule_made_misspellings(word: str, expected: tuple[str, ...]) -> None:
    assert misspellings(word) == expected


def test_the_list_has_each_word_once_and_never_as_its_own_misspelling() -> None:
    rows = word_rows("misspellings")
    assert len({row[0] for row in rows}) == len(rows)
    assert [row for row in rows if len(row) < 2 or row[0] in row[1:]] == []


def test_every_misspelling_is_one_word() -> None:
    listed = [word for row in word_rows("misspellings") for key in row for word in misspellings(key.lower())]
    ruled = [word for row in word_rows("synonyms") for key in row[1:] for word in misspellings(key)]
    assert [word for word in listed + ruled if [found.text for found in words_of(word)] != [word]] == []


def test_a_words_log_prob_is_the_sum_over_its_tokens(backbone: Backbone) -> None:
    text = f"{SENTENCES[0]}\n\n  {SENTENCES[1]}"
    words = words_of(text)
    reading = read_words(backbone, text)
    extractor = Extractor(backbone)
    (encoding,) = extractor.encode([text])
    (features,) = extractor.extract(["k"], [encoding])
    canonical = " ".join(text.split())
    assert np.isnan(reading.log_probs[0])  # nothing stands before it
    start = canonical.index("committee")
    expected = sum(
        features.metrics[i - 1, 0]
        for i, (a, b) in enumerate(features.offsets.tolist())
        if a < start + len("committee") and b > start
    )
    place = [word.text for word in words].index("committee")
    assert reading.log_probs[place] == pytest.approx(expected, rel=1e-6)
    assert reading.first_tokens[place] == next(i for i, (_, b) in enumerate(features.offsets.tolist()) if b > start)


def test_a_word_is_not_looked_for_inside_what_is_no_word(backbone: Backbone) -> None:
    text = "The iPhone5 was on the table."
    reading, words = read_words(backbone, text), [word.text for word in words_of(text)]
    assert words == ["The", "was", "on", "the", "table"]  # not what stands beside a digit
    extractor = Extractor(backbone)
    (encoding,) = extractor.encode([text])
    ends = encoding.offsets[:, 1].tolist()
    expected = [next(i for i, end in enumerate(ends) if end > text.index(f" {word}") + 1) for word in words[1:]]
    assert reading.first_tokens[1:].tolist() == expected


def test_words_behind_the_limit_are_not_judged(backbone: Backbone) -> None:
    text = "abc defg " * 300  # more tokens than the 512 that the model can read
    reading = read_words(backbone, text)
    assert np.isnan(reading.log_probs[-1])
    assert reading.first_tokens[-1] == -1
    assert np.isfinite(reading.log_probs[1:50]).all()


def test_the_most_probable_words_are_misspelt_first(backbone: Backbone, means: AttackMeans) -> None:
    words = words_of(TEXT)
    log_probs = read_words(backbone, TEXT).log_probs
    known = [i for i, word in enumerate(words) if misspellings(word.text.lower()) and not np.isnan(log_probs[i])]
    best = sorted(known, key=lambda i: -log_probs[i])[:3]
    found = words_of(attacked("misspelling", TEXT, 0.2, means=means)[0])
    assert [i for i in range(len(words)) if found[i].text != words[i].text] == sorted(best)
    assert all(found[i].text in misspellings(words[i].text.lower()) for i in best)


def test_a_strength_beyond_what_can_be_misspelt_changes_what_can(means: AttackMeans) -> None:
    found = attacked("misspelling", "Because xyzzy qwrtp.", 1.0, means=means)[0]
    assert found in ("Becuase xyzzy qwrtp.", "Becasue xyzzy qwrtp.")


def test_nothing_to_misspell_needs_no_language_model() -> None:
    assert attacked("misspelling", ["", "Xyzzy", "123", TEXT], 0.01) == ["", "Xyzzy", "123", TEXT]


def test_words_with_capitals_within_are_left_as_they_are(means: AttackMeans) -> None:
    assert attacked("misspelling", "beCause BeCause xyzzy", 1.0, means=means) == ["beCause BeCause xyzzy"]
    assert attacked("misspelling", "BECAUSE", 1.0, means=means)[0] in ("BECUASE", "BECASUE")


def test_company_changes_nothing(means: AttackMeans) -> None:
    texts = [TEXT, *SENTENCES]
    assert attacked("misspelling", texts, 0.2, means=means) == [
        attacked("misspelling", text, 0.2, means=means)[0] for text in texts
    ]


@pytest.mark.slow
def test_the_real_model_finds_small_words_most_probable(backbone_home: Path) -> None:
    from detect.catalog import DEFAULT_BACKBONE
    from features.registry import resolve

    real = Backbone.load(resolve(DEFAULT_BACKBONE), device="cpu")
    text = "The committee will meet on Monday in order to decide which of the two proposals should be accepted."
    found = attacked("misspelling", text, 0.1, means=AttackMeans(backbone=lambda: real))[0].split()
    changed = [word for word, other in zip(text.split(), found, strict=True) if word != other]
    assert changed == ["to", "the"]
