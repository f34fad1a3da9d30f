"""The adaptive attack: against a detector that counts words, whose best answer is known."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from detect.adversarial.adaptive import Adaptive
from detect.adversarial.attack import AttackedText, AttackMeans
from detect.adversarial.catalog import attack_named
from detect.adversarial.substitutes import Candidate
from detect.adversarial.synonym import LEAST_GAIN
from detect.adversarial.words import words_of
from features.backbone import Backbone
from features.errors import UsageError
from tests.detect.adversarial.attacked import document, no_backbone
from tests.detect.adversarial.word_backbone import TEXT, word_backbone


class WordCounter:
    """Scores a text by how many times it has some words."""

    def __init__(self, **weights: float) -> None:
        self.weights = weights
        self.asked = 0

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        self.asked += len(texts)
        return np.array([sum(self.weights.get(word.strip(".,"), 0.0) for word in text.split()) for text in texts])


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return word_backbone(tmp_path_factory.mktemp("words"))


def attack(backbone: Backbone, score: WordCounter, strength: float, label: int | None = 1) -> AttackedText:
    means = AttackMeans(backbone=lambda: backbone, score=score)
    return attack_named("adaptive", means).apply([document(TEXT, label)], strength, 0)[0]


def test_the_word_that_counts_most_goes_first(backbone: Backbone) -> None:
    score = WordCounter(film=3.0, quickly=1.0)
    assert attack(backbone, score, 1 / 17).text == TEXT.replace("film", "movie")
    assert attack(backbone, score, 2 / 17).text == TEXT.replace("film", "movie").replace("quickly", "rapidly")


def test_the_best_candidate_is_kept_and_only_if_it_is_better(backbone: Backbone) -> None:
    assert attack(backbone, WordCounter(film=1.0, movie=2.0), 1.0).text == TEXT
    found = attack(backbone, WordCounter(dog=1.0, hound=0.5, big=1.0, large=-1.0), 1.0).text
    assert found.count("hound") == 2
    assert found.count("large") == 2


def test_a_candidate_that_is_too_improbable_is_not_even_tried(backbone: Backbone) -> None:
    place = [word.text for word in words_of(TEXT)].index("film")
    options = [Candidate("reel", 0.9, LEAST_GAIN - 1e-6), Candidate("movie", 0.7, LEAST_GAIN)]
    score = WordCounter(film=1.0, reel=-9.0, movie=0.5)
    attack = Adaptive(AttackMeans(backbone=lambda: backbone, score=score))
    attack.__dict__["_substitutes"] = SimpleNamespace(in_context=lambda *asked: {place: options})
    (found,) = attack.apply([document(TEXT)], 1.0, 0)
    assert found == AttackedText(TEXT.replace("film", "movie"), queries=3)  # as it is, without the word, with "movie"
    options.pop()
    score.asked = 0
    assert attack.apply([document(TEXT)], 1.0, 0) == [AttackedText(TEXT)]
    assert score.asked == 0


def test_a_human_text_is_moved_towards_machine_scores(backbone: Backbone) -> None:
    score = WordCounter(movie=1.0, rapidly=-1.0)
    assert attack(backbone, score, 0.1, label=0).text == TEXT.replace("film", "movie")
    assert attack(backbone, score, 0.1, label=None).text == TEXT.replace("quickly", "rapidly")


def test_every_text_that_the_detector_saw_is_counted(backbone: Backbone) -> None:
    score = WordCounter(film=1.0)
    found = attack(backbone, score, 1.0)
    assert found.queries == score.asked > 1


def test_the_budget_bounds_the_words_that_change(backbone: Backbone) -> None:
    score = WordCounter(big=1.0, dog=1.0, walked=1.0, quickly=1.0, film=1.0)
    for strength in (0.0, 0.06, 0.12, 0.3):
        found = attack(backbone, score, strength).text
        assert sum(a != b for a, b in zip(TEXT.split(), found.split(), strict=True)) == round(17 * strength)


@pytest.mark.parametrize("text", ["", "the", "1, 2!"])
def test_a_text_without_candidates_costs_no_query(backbone: Backbone, text: str) -> None:
    means = AttackMeans(backbone=lambda: backbone, score=WordCounter())
    assert attack_named("adaptive", means).apply([document(text)], 1.0, 0) == [AttackedText(text)]


def test_a_text_without_score_stays(backbone: Backbone) -> None:
    means = AttackMeans(backbone=lambda: backbone, score=lambda texts: np.full(len(texts), np.nan))
    assert attack_named("adaptive", means).apply([document(TEXT)], 1.0, 0) == [AttackedText(TEXT, queries=1)]


def test_without_a_detector_it_is_refused() -> None:
    with pytest.raises(UsageError, match="attack adaptive asks the attacked detector for scores; name the detector"):
        attack_named("adaptive", AttackMeans(backbone=no_backbone))


@pytest.mark.slow
def test_it_evades_a_real_zero_shot_detector(backbone_home: Path) -> None:
    from detect.catalog import DEFAULT_BACKBONE, untrained
    from features.extractor import Extractor
    from features.registry import resolve

    real = Backbone.load(resolve(DEFAULT_BACKBONE), device="cpu")
    extractor, detector = Extractor(real), untrained("log-likelihood")

    def score(texts: Sequence[str]) -> np.ndarray:
        return detector.score(extractor.extract([""] * len(texts), extractor.encode(texts)))

    text = "It is important to note that the method is very useful, because the results show a significant improvement."
    means = AttackMeans(backbone=lambda: real, score=score)
    attack = attack_named("adaptive", means)
    machine, human = attack.apply([document(text, 1), document(text, 0)], 0.2, 0)
    before, evaded, accused = score([text, machine.text, human.text])
    assert evaded < before - 0.1
    assert accused > before
    assert machine.queries > 1
