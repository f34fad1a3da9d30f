import math
import sys
from typing import Any

import numpy as np
import pytest
import torch

from detect.adversarial.generation import Continuation
from detect.adversarial.policy import Policy
from detect.adversarial.preference import (
    Pair,
    PreferenceConfig,
    check_trl,
    human_pairs,
    ranked_pairs,
    train_dpo,
)
from detect.adversarial.prompts import Prompt
from features.documents import Document
from features.errors import DetectorError, UsageError
from features.registry import BackboneFiles
from tests.detect.adversarial.generators import tiny_generator

PROMPTS = [Prompt(Document(id=str(i), text=""), "a", (i,), "b", (100 + i,)) for i in (1, 2, 3, 4)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> BackboneFiles:
    return tiny_generator(tmp_path_factory.mktemp("model"))


def texts(*ids: int) -> list[Continuation]:
    return [Continuation((number,), "", "") for number in ids]


def test_the_more_human_of_two_texts_is_chosen_and_ties_are_left_out():
    scores = [np.array([0.1, 5.0, 2.0, np.nan]), np.array([0.2, -5.0, 2.0, 9.0])]
    pairs = ranked_pairs(PROMPTS, (texts(10, 20, 30, 40), texts(11, 21, 31, 41)), scores)
    assert pairs == [Pair((1,), (10,), (11,)), Pair((2,), (21,), (20,)), Pair((4,), (41,), (40,))]


def test_of_several_texts_the_most_human_is_chosen_over_the_least():
    scores = [np.array([0.1, 1.0]), np.array([0.3, np.nan]), np.array([0.2, -1.0])]
    pairs = ranked_pairs(PROMPTS[:2], (texts(10, 20), texts(11, 21), texts(12, 22)), scores)
    assert pairs == [Pair((1,), (10,), (11,)), Pair((2,), (22,), (21,))]


def test_one_drawing_leaves_nothing_to_rank():
    with pytest.raises(UsageError, match="at least 2 drawings to rank, got 1"):
        PreferenceConfig(drawings=1)


def test_two_texts_without_a_score_are_a_tie():
    scores = [np.full(4, np.nan), np.full(4, np.nan)]
    assert ranked_pairs(PROMPTS, (texts(1, 2, 3, 4), texts(5, 6, 7, 8)), scores) == []


def test_human_text_is_chosen_over_own():
    assert human_pairs(PROMPTS[:2], texts(10, 20)) == [Pair((1,), (101,), (10,)), Pair((2,), (102,), (20,))]


def pairs_of(count: int = 12, length: int = 5) -> list[Pair]:
    """The chosen continuations are of even tokens, the rejected of odd ones."""
    rng = np.random.default_rng(0)
    rows = rng.integers(40, 140, (count, 2, length))
    return [
        Pair((7 + i, 8), tuple((2 * rows[i, 0]).tolist()), tuple((2 * rows[i, 1] + 1).tolist())) for i in range(count)
    ]


def margin(policy: Policy, pairs: list[Pair]) -> float:
    with torch.no_grad():
        chosen = policy.log_probs([(pair.prompt, pair.chosen) for pair in pairs])
        rejected = policy.log_probs([(pair.prompt, pair.rejected) for pair in pairs])
    return float((chosen - rejected).mean())


def test_the_generator_comes_to_prefer_what_is_chosen(files: BackboneFiles):
    policy, pairs = Policy.load(files, device="cpu"), pairs_of()
    before = margin(policy, pairs)
    probed: list[float] = []
    told: list[float] = []
    curve = train_dpo(
        policy,
        pairs,
        PreferenceConfig(epochs=4, batch_size=4, learning_rate=1e-2, warmup=0.0),
        probe=lambda point: probed.append(point["step"]),
        on_point=lambda point: told.append(point["loss"]),
    )
    assert margin(policy, pairs) > before + 1
    assert [point["step"] for point in curve] == [float(step) for step in range(1, 13)]
    assert math.isclose(curve[0]["loss"], math.log(2), rel_tol=1e-4)  # the reference is the untuned generator
    assert curve[-1]["loss"] < curve[0]["loss"]
    assert curve[-1]["accuracy"] == 1.0
    assert curve[-1]["margin"] > 0
    assert probed == [0.0, 3.0, 6.0, 9.0, 12.0]
    assert told == [point["loss"] for point in curve]


def test_trl_learns_the_generators_own_tokens(files: BackboneFiles, monkeypatch: pytest.MonkeyPatch):
    # Nothing is tokenised again, and no text gets a token that ends it.
    seen: list[dict[str, Any]] = []
    import trl

    loss = trl.DPOTrainer._compute_loss

    def spy(self: Any, model: Any, inputs: Any, *rest: Any) -> Any:
        seen.append({name: value.tolist() for name, value in inputs.items()})
        return loss(self, model, inputs, *rest)

    monkeypatch.setattr(trl.DPOTrainer, "_compute_loss", spy)
    pairs = pairs_of(2)
    train_dpo(Policy.load(files, device="cpu"), pairs, PreferenceConfig(epochs=1, batch_size=2))
    rows = {tuple(row) for row in seen[0]["input_ids"]}
    assert rows == {(*p.prompt, *own) for p in pairs for own in (p.chosen, p.rejected)}


def test_only_the_trained_adapter_is_left(files: BackboneFiles):
    policy = Policy.load(files, device="cpu")
    train_dpo(policy, pairs_of(2), PreferenceConfig(epochs=1, batch_size=2))
    assert list(policy.adapted.peft_config) == ["default"]


def test_no_pairs_are_an_error(files: BackboneFiles):
    with pytest.raises(DetectorError, match="no pair to learn from"):
        train_dpo(Policy.load(files, device="cpu"), [], PreferenceConfig())


def test_the_extra_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "trl", None)
    with pytest.raises(UsageError, match=r"needs TRL .*pip install 'pawn-detect\[redteam\]'"):
        check_trl()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs of at least 1, got 0"),
        ({"beta": 0.0}, "beta above 0, got 0.0"),
        ({"warmup": 1.0}, r"0 <= warmup < 1, got 1\.0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str):
    with pytest.raises(UsageError, match=message):
        PreferenceConfig(**settings)
