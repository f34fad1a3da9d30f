"""Neighbours by token vectors, candidates for the words of a text, and the attacks that use them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from detect.adversarial.attack import AttackMeans
from detect.adversarial.neighbours import Neighbours
from detect.adversarial.substitutes import Substitutes
from detect.adversarial.word_model import read_words
from detect.adversarial.words import words_of
from features.backbone import Backbone
from tests.detect.adversarial.attacked import around_words, attacked
from tests.detect.adversarial.word_backbone import TEXT, WORDS, word_backbone

SPACED = (
    "  Because big\tdogs\n \n walked (quickly), it was — “big”.\r\n"
    "Big film;  Their movie… it's 'BECAUSE' a 3rd film_2 ran\u00a0home: Quickly!\u200b \n"
)
"""White space, marks, look-alikes of words, and capitals where each attack changes a word."""


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return word_backbone(tmp_path_factory.mktemp("words"))


@pytest.fixture(scope="module")
def means(backbone: Backbone) -> AttackMeans:
    return AttackMeans(backbone=lambda: backbone)


def test_neighbours_are_by_the_cosine_of_the_rows_of_the_projection(backbone: Backbone) -> None:
    rows = backbone.model.get_output_embeddings().weight.float()
    expected = torch.nn.functional.cosine_similarity(rows[WORDS.index("big")], rows[WORDS.index("large")], dim=0)
    (nearest, cosine), *_ = Neighbours(backbone).of("big")
    assert nearest == "large"
    assert cosine == pytest.approx(float(expected), abs=1e-6)


def test_only_lower_case_words_of_three_letters_after_a_space_are_neighbours(backbone: Backbone) -> None:
    neighbours = Neighbours(backbone)
    assert set(neighbours.words) == {word for word in WORDS if word.islower() and len(word) >= 3}
    assert neighbours.of("xyzzy") == []
    assert len(neighbours.of("dog")) == len(neighbours.words) - 1


def test_candidates_agree_in_form_case_and_article_and_are_no_opposites(backbone: Backbone) -> None:
    text = "Big dogs saw a big film in London; the large movie, LARGE."
    words = words_of(text)
    found = {words[place].text: set(others) for place, others in Substitutes(backbone).of_words(text, words).items()}
    assert {"Large", "Huge", "Enormous"} <= found["Big"]
    assert {"large", "huge"} <= found["big"]
    assert "enormous" not in found["big"]  # after "a"
    assert "movie" in found["film"]
    assert not {"small", "Small"} & set.union(*found.values())
    assert not {"dogs", "saw", "a", "London", "LARGE"} & set(found)


def test_in_context_only_single_tokens_are_judged_by_how_much_likelier_they_are(backbone: Backbone) -> None:
    words = words_of(TEXT)
    reading = read_words(backbone, TEXT)
    found = Substitutes(backbone).in_context(TEXT, words, reading)
    place = [word.text for word in words].index("film")
    other = TEXT.replace("film", "movie")
    expected = read_words(backbone, other).log_probs[place] - reading.log_probs[place]
    assert [candidate.text for candidate in found[place]] == ["movie"]
    # 1e-2: logits of states kept in float16 against those of float32.
    assert found[place][0].gain == pytest.approx(expected, abs=1e-2)
    for options in found.values():
        assert all(option.text in WORDS for option in options)
        assert [option.worth for option in options] == sorted((option.worth for option in options), reverse=True)


def test_synonyms_replace_at_most_their_share_of_words(means: AttackMeans) -> None:
    words = words_of(TEXT)
    for strength in (0.06, 0.12, 1.0):
        found = words_of(attacked("synonym", TEXT, strength, means=means)[0])
        changed = [(a.text, b.text) for a, b in zip(words, found, strict=True) if a.text != b.text]
        assert len(changed) <= round(strength * len(words))
        assert set(changed) <= {
            ("big", "large"),
            ("big", "enormous"),
            ("dog", "hound"),
            ("walked", "strolled"),
            ("quickly", "rapidly"),
            ("film", "movie"),
        }
    assert changed


def test_the_seed_and_company_change_no_synonym(means: AttackMeans) -> None:
    assert attacked("synonym", [TEXT, "A big tree.", TEXT], 0.5, seed=1, means=means) == [
        attacked("synonym", text, 0.5, means=means)[0] for text in (TEXT, "A big tree.", TEXT)
    ]


@pytest.mark.parametrize("name", ["word", "sentence", "synonym"])
def test_texts_without_candidates_stay(name: str, means: AttackMeans) -> None:
    assert attacked(name, ["", "the", "a 1!"], 1.0, means=means) == ["", "the", "a 1!"]


@pytest.mark.parametrize("name", ["word", "sentence", "synonym", "misspelling"])
def test_strength_0_needs_no_language_model(name: str) -> None:
    assert attacked(name, [TEXT, ""], 0.0) == [TEXT, ""]


def test_words_are_swapped_for_neighbours_of_the_language_model(means: AttackMeans) -> None:
    words = words_of(TEXT)
    found = words_of(attacked("word", TEXT, 0.2, means=means)[0])
    changed = [(a.text, b.text) for a, b in zip(words, found, strict=True) if a.text != b.text]
    assert len(changed) == 3  # 20% of 17
    candidates = Substitutes(means.backbone()).of_words(TEXT, words)
    assert {b for _, b in changed} <= {other for others in candidates.values() for other in others}


@pytest.mark.parametrize("strength", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("name", ["synonym", "word", "misspelling"])
def test_attacks_on_words_leave_their_number_and_all_that_stands_between_them(
    name: str, strength: float, means: AttackMeans
) -> None:
    for seed in range(5):
        found = attacked(name, SPACED, strength, seed, means)[0]
        assert found != SPACED
        assert around_words(found) == around_words(SPACED)


@pytest.mark.parametrize(
    ("name", "capitals"), [("synonym", {"Big"}), ("word", {"Big"}), ("misspelling", {"Because", "Their", "BECAUSE"})]
)
def test_a_changed_word_has_a_capital_where_the_old_one_had(name: str, capitals: set[str], means: AttackMeans) -> None:
    before, after = words_of(SPACED), words_of(attacked(name, SPACED, 1.0, means=means)[0])
    changed = [(a.text, b.text) for a, b in zip(before, after, strict=True) if a.text != b.text]
    assert capitals <= {a for a, _ in changed}
    assert {a for a, _ in changed if a.islower()}
    for a, b in changed:
        assert (b[0].isupper(), b.isupper()) == (a[0].isupper(), a.isupper())


@pytest.mark.parametrize("name", ["word", "sentence"])
def test_swaps_and_slips_are_the_same_in_any_company(name: str, means: AttackMeans) -> None:
    texts = [TEXT, "The old tree was big, and it ran rapidly."]
    assert attacked(name, texts, 0.3, means=means) == [attacked(name, text, 0.3, means=means)[0] for text in texts]
    assert attacked(name, texts, 0.3, seed=1, means=means) != attacked(name, texts, 0.3, means=means)


def test_sentence_level_changes_only_words_of_four_letters(means: AttackMeans) -> None:
    found = attacked("sentence", "The big dog saw it in an old tree.", 1.0, means=means)[0]
    assert found.startswith("The big dog saw it in an old ")
    assert found != "The big dog saw it in an old tree."


@pytest.mark.slow
def test_the_real_model_gives_synonyms_that_fit(backbone_home: Path) -> None:
    from detect.catalog import DEFAULT_BACKBONE
    from features.registry import resolve

    real = Backbone.load(resolve(DEFAULT_BACKBONE), device="cpu")
    text = "We show that the method is fast. However, the results of the study were surprising to many researchers."
    words = words_of(text)
    options = Substitutes(real).in_context(text, words, read_words(real, text))
    assert all(np.isfinite(option.gain) for found in options.values() for option in found)
    found = attacked("synonym", text, 0.5, means=AttackMeans(backbone=lambda: real))[0].split()
    changed = {a: b for a, b in zip(text.split(), found, strict=True) if a != b}
    assert len(changed) >= 4
    assert changed["show"] in ("demonstrate", "reveal", "display")
    assert changed["researchers."] in ("scientists.", "experts.", "scholars.")
