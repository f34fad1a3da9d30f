import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from detect.adversarial.critic import CriticConfig, advantages, critic_loss, train_critic
from detect.adversarial.generation import SamplingSettings
from detect.adversarial.policy import Policy
from features.errors import DetectorError, UsageError
from features.registry import BackboneFiles
from tests.detect.adversarial.generators import letters_e, tiny_generator, tiny_prompts

SAMPLING = SamplingSettings(new_tokens=12, temperature=1.0)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> BackboneFiles:
    return tiny_generator(tmp_path_factory.mktemp("model"))


def test_verdicts_are_minus_the_standardised_scores():
    assert advantages(np.array([1.0, 3.0]), 2.0).tolist() == [1.0, -1.0]
    found = advantages(np.array([2.0, 2.0, 2.0, 6.0]), 9.0)
    assert_close(found, np.array([1.0, 1.0, 1.0, -3.0]) / math.sqrt(3))


def test_verdicts_are_cut_to_the_limit():
    assert advantages(np.array([0.0] * 9 + [10.0]), 2.0).min() == -2.0


def test_a_text_without_a_score_counts_as_the_most_machine_like():
    found = advantages(np.array([1.0, np.nan, 3.0]), 2.0)
    assert found[1] == found[2] < 0 < found[0]


@pytest.mark.parametrize("scores", [[4.0, 4.0], [np.nan, np.nan]])
def test_equal_scores_reinforce_nothing(scores: list[float]):
    assert advantages(np.array(scores), 2.0).tolist() == [0.0, 0.0]


def test_the_loss_is_minus_the_weighted_mean_log_probability():
    log_probs, weights = torch.tensor([-1.0, -3.0]), torch.tensor([2.0, -1.0])
    assert float(critic_loss(log_probs, torch.ones(2), 0.5)) == 1.0
    assert float(critic_loss(log_probs, weights, 2.0)) == -2.0 * (2 * -1 + -1 * -3) / 2


def train(files: BackboneFiles, **settings: Any) -> list[dict[str, float]]:
    config = CriticConfig(**{"rounds": 3, "texts": 8, "batch_size": 4, "learning_rate": 1e-2} | settings)
    policy = Policy.load(files, device="cpu")
    return train_critic(policy, tiny_prompts(files, 11), letters_e, SAMPLING, config)


def test_the_generator_learns_to_avoid_what_the_detector_looks_for(files: BackboneFiles):
    curve = train(files, rounds=20, texts=24, batch_size=8, human_weight=0.0)
    assert [point["step"] for point in curve] == [3.0 * number for number in range(20)]
    first, last = (float(np.mean([point["score"] for point in part])) for part in (curve[:3], curve[-3:]))
    assert last < 0.5 * first


def test_without_verdict_it_learns_human_texts(files: BackboneFiles):
    curve = train(files, rounds=8, verdict_weight=0.0, human_weight=1.0)
    assert curve[-1]["human_loss"] < curve[0]["human_loss"] - 1
    for point in curve:
        assert math.isclose(point["loss"], point["human_loss"], rel_tol=1e-5)


def test_the_same_seed_gives_the_same_curve(files: BackboneFiles):
    assert train(files) == train(files)
    assert train(files) != train(files, seed=1)


def test_a_round_is_told_of_and_measured(files: BackboneFiles):
    told: list[float] = []
    curve = train_critic(
        Policy.load(files, device="cpu"),
        tiny_prompts(files, 5),
        lambda texts: np.full(len(texts), np.nan),
        SAMPLING,
        CriticConfig(rounds=2, texts=4, batch_size=4),
        measure=lambda prompts, texts: {"seen": float(len(prompts) + len(texts))},
        on_point=lambda point: told.append(point["seen"]),
    )
    assert told == [8.0, 8.0]
    assert curve[0]["unscored"] == 1.0
    assert math.isnan(curve[0]["score"])


def test_a_generator_that_diverges_is_an_error(files: BackboneFiles):
    with pytest.raises(DetectorError, match=r"diverged in round 1: .*learning_rate below 1e\+30"):
        train(files, learning_rate=1e30)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rounds": 0}, "rounds of at least 1, got 0"),
        ({"texts": 1}, "texts of at least 2"),
        ({"batch_size": 0}, "batch_size of at least 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate above 0, got 0.0"),
        ({"verdict_weight": -1.0}, "verdict_weight of at least 0, got -1.0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str):
    with pytest.raises(UsageError, match=message):
        CriticConfig(**settings)
