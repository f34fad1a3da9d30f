"""Critic-reinforced fine-tuning: a generator learns from human texts and from a detector's verdict on its own.

After Henrique, Kucharavy and Guerraoui 2023 (arXiv 2304.08968). Their abstract says that a generator with access to a
detector's human references and its output evades it once the loss gets a reinforcement from the critic, with AdamW;
the paper's body was not at hand, so the loss below is a reading of the abstract, not theirs to the letter:

    loss = - human_weight   x mean over human continuations of  log p(human | prompt)
           - verdict_weight x mean over own continuations of    A x log p(own | prompt)

with log p the mean over tokens, and A the detector's verdict: minus its score, standardised over the texts of a round
and cut to +-`advantage_limit`. This is the policy gradient with the round's mean as its baseline; the first term is
what keeps the generator a language model.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from detect.adversarial.generation import Continuation, SamplingSettings, sample
from detect.adversarial.policy import MICRO_BATCH, Policy, Texts
from detect.adversarial.prompts import Prompt
from features.errors import DetectorError, UsageError

Score = Callable[[Sequence[str]], np.ndarray]
"""A detector's scores of texts, (n,) float64, higher = more machine-like; NaN for a text that has none."""

Measure = Callable[[Sequence[Prompt], Sequence[Continuation]], Mapping[str, float]]
"""What is noted of texts on the way, such as their perplexity."""

OnPoint = Callable[[Mapping[str, float]], None]
"""Told of each point of the training's curve: "step" and figures by name."""


@dataclass(frozen=True, kw_only=True)
class CriticConfig:
    """The recipe.

    Attributes:
        rounds: samplings from the generator as it then is, each followed by one pass over what was drawn.
        texts: own continuations in a round, and human ones.
        batch_size: texts of each kind in an optimiser's step.
        learning_rate: AdamW's.
        weight_decay: AdamW's.
        gradient_clip: largest norm of the gradient.
        human_weight: of the language-model loss on human texts.
        verdict_weight: of the detector's verdict on own texts.
        advantage_limit: largest weight of one text.
        seed: of prompts and drawing.

    Raises:
        UsageError: naming the first setting that cannot be.
    """

    rounds: int = 16
    texts: int = 32
    batch_size: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    human_weight: float = 0.5
    verdict_weight: float = 1.0
    advantage_limit: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rounds", "texts", "batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"expected {name} of at least 1, got {getattr(self, name)}")
        if self.texts < 2:
            raise UsageError("expected texts of at least 2: one text alone has no verdict relative to others")
        for name in ("learning_rate", "gradient_clip", "advantage_limit"):
            if getattr(self, name) <= 0:
                raise UsageError(f"expected {name} above 0, got {getattr(self, name)}")
        for name in ("human_weight", "verdict_weight", "weight_decay"):
            if getattr(self, name) < 0:
                raise UsageError(f"expected {name} of at least 0, got {getattr(self, name)}")


def advantages(scores: np.ndarray, limit: float) -> np.ndarray:
    """What each text of a round weighs in the loss: minus its score, standardised, (n,) to (n,) float64.

    A text without a score (NaN) counts as the most machine-like of the round: it is no way out. Where all scores are
    equal no text weighs anything.
    """
    known = scores[np.isfinite(scores)]
    filled = np.where(np.isfinite(scores), scores, known.max() if len(known) else 0.0)
    spread = filled.std()
    if spread == 0:
        return np.zeros_like(filled)
    standardised: np.ndarray = np.clip((filled.mean() - filled) / spread, -limit, limit)
    return standardised


def critic_loss(human: Tensor, own: Tensor, weights: Tensor, config: CriticConfig) -> Tensor:
    """The loss of this module's docstring.

    Args:
        human: (texts,) mean log-probabilities of human continuations.
        own: (texts,) of the generator's.
        weights: (texts,) `advantages` of the generator's.
        config: the weights of the two terms.
    """
    return -config.human_weight * human.mean() - config.verdict_weight * (weights * own).mean()


def train_critic(
    policy: Policy,
    prompts: Sequence[Prompt],
    score: Score,
    sampling: SamplingSettings,
    config: CriticConfig,
    *,
    measure: Measure = lambda prompts, texts: {},
    on_point: OnPoint = lambda point: None,
) -> list[dict[str, float]]:
    """Fine-tune a generator's adapters in place against a detector.

    Args:
        policy: the generator.
        prompts: with their human continuations.
        score: of the detector that is attacked.
        sampling: how own texts are drawn.
        config: the recipe.
        measure: what to note of the texts of each round.
        on_point: told of each round.

    Returns:
        A point a round: step (optimiser steps before the round's texts were drawn), score (mean of the round's texts),
        loss, human_loss (nats a token), unscored (share) and what `measure` gives.

    Raises:
        DetectorError: when the training diverges.
    """
    optimiser = torch.optim.AdamW(policy.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    order = _endless(len(prompts), config.seed)
    curve: list[dict[str, float]] = []
    steps = 0
    for number in range(config.rounds):
        chosen = [prompts[next(order)] for _ in range(config.texts)]
        drawn = sample(policy.snapshot(), policy.tokenizer, chosen, sampling, seed=config.seed * 100_003 + number)
        scores = score([text.text for text in drawn])
        point = {"step": float(steps), "score": _mean(scores), "unscored": float(np.mean(~np.isfinite(scores)))}
        losses = []
        weights = advantages(scores, config.advantage_limit)
        for start in range(0, len(chosen), config.batch_size):
            part = slice(start, start + config.batch_size)
            losses.append(_step(policy, optimiser, chosen[part], drawn[part], weights[part], config))
            steps += 1
        point |= {name: float(np.mean([loss[name] for loss in losses])) for name in losses[0]}
        point |= measure(chosen, drawn)
        curve.append(point)
        on_point(point)
        if not math.isfinite(point["loss"]):
            raise DetectorError(
                f"the generator diverged in round {number + 1}: its loss is {point['loss']}; ask for a learning_rate "
                f"below {config.learning_rate:g}"
            )
    return curve


def _step(
    policy: Policy,
    optimiser: torch.optim.Optimizer,
    prompts: Sequence[Prompt],
    own: Sequence[Continuation],
    weights: np.ndarray,
    config: CriticConfig,
) -> dict[str, float]:
    """One step of the optimiser on so many texts of each kind; gradients are summed over small batches of them."""
    policy.adapted.train()
    optimiser.zero_grad(set_to_none=True)
    found = {"loss": 0.0, "human_loss": 0.0}
    for start in range(0, len(prompts), MICRO_BATCH):
        part = slice(start, start + MICRO_BATCH)
        share = len(prompts[part]) / len(prompts)
        human: Texts = [(prompt.token_ids, prompt.human_ids) for prompt in prompts[part]]
        drawn: Texts = [
            (prompt.token_ids, text.token_ids) for prompt, text in zip(prompts[part], own[part], strict=True)
        ]
        human_log_probs, own_log_probs = policy.log_probs(human), policy.log_probs(drawn)
        signs = torch.from_numpy(weights[part]).to(own_log_probs)
        loss = critic_loss(human_log_probs, own_log_probs, signs, config) * share
        loss.backward()
        found["loss"] += float(loss.detach())
        found["human_loss"] -= float(human_log_probs.detach().mean()) * share
    nn.utils.clip_grad_norm_(policy.parameters(), config.gradient_clip)
    optimiser.step()
    return found


def _endless(count: int, seed: int) -> Iterator[int]:
    """Every index once in random order, again and again."""
    rng = np.random.default_rng(seed)
    while True:
        yield from rng.permutation(count).tolist()


def _mean(scores: np.ndarray) -> float:
    known = scores[np.isfinite(scores)]
    return float(known.mean()) if len(known) else float("nan")
