"""Critic-reinforced fine-tuning: a generator learns from human texts and from a detector's verdict on its own.

After Henrique, Kucharavy and Guerraoui 2023 (arXiv 2304.08968). Their abstract says that a generator with access to a
detector's human references and its output evades it once the loss gets a reinforcement from the critic, with AdamW;
the paper's body was not at hand, so the loss below is a reading of the abstract, not theirs to the letter:

    loss = - human_weight   x mean over human continuations of  log p(human | prompt)
           - verdict_weight x mean over own continuations of    A x log p(own | prompt)

with log p the mean over tokens, and A the detector's verdict: minus its score, standardised over the texts of a round
and cut to +-`advantage_limit`. This is the policy gradient with the round's mean as its baseline; the first term is
what keeps the generator a language model. Own texts are drawn at the temperature that is asked for, while log p is the
model's at temperature 1.
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

    rounds: int = 12
    texts: int = 32
    batch_size: int = 8
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


def critic_loss(log_probs: Tensor, weights: Tensor, weight: float) -> Tensor:
    """A term of this module's loss: - weight x mean of weights x log p.

    Args:
        log_probs: (texts,) mean log-probabilities of continuations.
        weights: (texts,) ones for human continuations, `advantages` for the generator's.
        weight: of the term.
    """
    return -weight * (weights * log_probs).mean()


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
    human: Texts = [(prompt.token_ids, prompt.human_ids) for prompt in prompts]
    drawn: Texts = [(prompt.token_ids, text.token_ids) for prompt, text in zip(prompts, own, strict=True)]
    human_loss, human_mean = _backward(policy, human, np.ones(len(human)), config.human_weight)
    own_loss, _ = _backward(policy, drawn, weights, config.verdict_weight)
    nn.utils.clip_grad_norm_(policy.parameters(), config.gradient_clip)
    optimiser.step()
    return {"loss": human_loss + own_loss, "human_loss": -human_mean}


def _backward(policy: Policy, texts: Texts, weights: np.ndarray, weight: float) -> tuple[float, float]:
    """Add the gradients of a term of the loss, a few texts at a time; the term, and the mean log-probability."""
    loss = mean = 0.0
    for start in range(0, len(texts), MICRO_BATCH):
        part = slice(start, start + MICRO_BATCH)
        share = len(texts[part]) / len(texts)
        log_probs = policy.log_probs(texts[part])
        term = critic_loss(log_probs, torch.from_numpy(weights[part]).to(log_probs), weight) * share
        term.backward()
        loss += float(term.detach())
        mean += float(log_probs.detach().mean()) * share
    return loss, mean


def _endless(count: int, seed: int) -> Iterator[int]:
    """Every index once in random order, again and again."""
    rng = np.random.default_rng(seed)
    while True:
        yield from rng.permutation(count).tolist()


def _mean(scores: np.ndarray) -> float:
    known = scores[np.isfinite(scores)]
    return float(known.mean()) if len(known) else float("nan")
