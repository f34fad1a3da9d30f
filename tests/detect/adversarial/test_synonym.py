"""What the synonym attack takes of the candidates that there are: the limits of gain and loss."""

from collections.abc import Mapping, Sequence
from types import SimpleNamespace

import numpy as np
import pytest

from detect.adversarial import synonym
from detect.adversarial.attack import AttackMeans
from detect.adversarial.substitutes import LIKENESS_WEIGHT, Candidate
from detect.adversarial.synonym import LEAST_GAIN, MOST_LOSS, Synonym
from tests.detect.adversarial.attacked import document

TEXT = "one two three four"


class Given:
    """Candidates that are what the test says, those worth most first as `Substitutes` has them."""

    def __init__(self, options: Mapping[int, Sequence[Candidate]]) -> None:
        self.options = {place: sorted(found, key=lambda one: -one.worth) for place, found in options.items()}

    def in_context(self, *asked: object) -> dict[int, list[Candidate]]:
        return self.options


def changed(
    monkeypatch: pytest.MonkeyPatch,
    options: Mapping[int, Sequence[Candidate]],
    losses: Sequence[float] = (0.0, 0.0, 0.0, 0.0),
    strength: float = 1.0,
) -> str:
    """What becomes of `TEXT`, whose words lose so many nats each when all the changes are made."""

    def read_words(backbone: object, text: str) -> SimpleNamespace:
        return SimpleNamespace(log_probs=np.array([np.nan, -1, -2, -3]) - (0.0 if text == TEXT else np.array(losses)))

    monkeypatch.setattr(synonym, "read_words", read_words)
    attack = Synonym(AttackMeans(backbone=lambda: None))
    attack.__dict__["_substitutes"] = Given(options)  # in the place of those of a language model
    return attack.apply([document(TEXT)], strength, 0)[0].text


def test_a_candidate_may_be_less_probable_than_the_word_by_the_least_gain_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = {1: [Candidate("zwei", 0.7, LEAST_GAIN)], 2: [Candidate("drei", 0.99, LEAST_GAIN - 1e-6)]}
    assert changed(monkeypatch, options) == "one zwei three four"


def test_where_the_candidate_worth_most_is_too_improbable_the_next_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    nearer, likelier = Candidate("deux", 0.9, LEAST_GAIN - 0.1), Candidate("zwei", 0.5, LEAST_GAIN + 0.1)
    assert nearer.worth > likelier.worth
    assert changed(monkeypatch, {1: [likelier, nearer]}) == "one zwei three four"


def test_words_change_in_the_order_of_what_their_candidates_are_worth(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {
        1: [Candidate("zwei", 0.5, 0.0)],
        2: [Candidate("drei", 0.5, 0.1)],
        3: [Candidate("vier", 0.5 + 0.2 / LIKENESS_WEIGHT, 0.0)],
    }
    assert changed(monkeypatch, options, strength=0.25) == "one two three vier"
    assert changed(monkeypatch, options, strength=0.5) == "one two drei vier"


def test_the_word_after_a_change_may_lose_the_most_loss_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {0: [Candidate("eins", 0.7, 0.0)], 1: [Candidate("zwei", 0.7, 0.0)], 2: [Candidate("drei", 0.7, 0.0)]}
    losses = (0.0, MOST_LOSS, MOST_LOSS + 1e-6, -9.0)
    assert changed(monkeypatch, options, losses) == "eins two drei four"


def test_no_loss_is_held_against_the_last_word_or_before_one_that_was_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = {2: [Candidate("drei", 0.7, 0.0)], 3: [Candidate("vier", 0.7, 0.0)]}
    assert changed(monkeypatch, options, (0.0, 0.0, 0.0, np.nan)) == "one two drei vier"
