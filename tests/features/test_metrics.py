"""Closed forms, a naive float64 twin in plain loops, and invariances of the next-token metrics."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from features.metrics import next_token_metrics
from features.token_features import METRIC_NAMES

LOG_PROB, ENTROPY, MAX_LOG_PROB, LOG_RANK, TOP_P, VARIANCE = range(6)


def naive_metrics(logits: list[float], target: int) -> list[float]:
    """The metrics of one distribution, from their definitions, in float64."""
    peak = max(logits)
    total = math.fsum(math.exp(x - peak) for x in logits)
    log_probs = [x - peak - math.log(total) for x in logits]
    likelier = [i for i, x in enumerate(logits) if x > logits[target]]
    mean = math.fsum(math.exp(p) * p for p in log_probs)
    return [
        log_probs[target],
        -mean,
        max(log_probs),
        math.log(1 + len(likelier)),
        math.fsum(math.exp(log_probs[i]) for i in likelier),
        math.fsum(math.exp(p) * (p - mean) ** 2 for p in log_probs),
    ]


def twin(logits: Tensor, targets: Tensor) -> Tensor:
    """`naive_metrics` of every row, as float32."""
    rows = zip(logits.double().tolist(), targets.tolist(), strict=True)
    return torch.tensor([naive_metrics(row, target) for row, target in rows])


def random_case(scale: float, dtype: torch.dtype = torch.float32, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(13, 101, generator=generator) * scale).to(dtype)
    return logits, torch.randint(0, 101, (13,), generator=generator)


def test_the_columns_are_the_named_metrics_in_order() -> None:
    assert METRIC_NAMES == (
        "log_prob",
        "entropy",
        "max_log_prob",
        "log_rank",
        "top_p",
        "log_prob_variance",
    )


def test_uniform_logits_have_entropy_ln_vocab_and_no_likelier_token() -> None:
    found = next_token_metrics(torch.zeros(3, 7), torch.tensor([0, 5, 6]))
    ln7 = math.log(7)
    assert_close(found, torch.tensor([[-ln7, ln7, -ln7, 0.0, 0.0, 0.0]]).expand(3, 6))


def test_three_known_probabilities_give_the_metrics_of_their_definitions() -> None:
    half, quarter = math.log(1 / 2), math.log(1 / 4)
    logits = torch.tensor([[half, quarter, quarter]]).expand(3, 3)
    entropy = 1.5 * math.log(2)
    # Deviations of the log-probabilities from their mean: +ln2/2 with 1/2, -ln2/2 with 1/4 twice.
    variance = (math.log(2) / 2) ** 2
    expected = [
        [half, entropy, half, 0.0, 0.0, variance],
        [quarter, entropy, half, math.log(2), 0.5, variance],  # a tie with the third: only the first counts
        [quarter, entropy, half, math.log(2), 0.5, variance],
    ]
    assert_close(next_token_metrics(logits, torch.tensor([0, 1, 2])), torch.tensor(expected))


def test_the_last_of_ranked_tokens_has_log_rank_ln_vocab() -> None:
    found = next_token_metrics(torch.arange(11.0)[None], torch.tensor([0]))
    assert_close(found[0, LOG_RANK].item(), math.log(11))
    assert_close(found[0, TOP_P].item(), 1 - math.exp(found[0, LOG_PROB].item()))


def test_tokens_as_likely_as_the_one_that_came_are_not_likelier() -> None:
    logits = torch.tensor([[2.0, 1.0, 1.0, 1.0, 0.0]])
    found = next_token_metrics(logits, torch.tensor([2]))
    assert_close(found, twin(logits, torch.tensor([2])))
    assert_close(found[0, LOG_RANK].item(), math.log(2))


@pytest.mark.parametrize("scale", [0.01, 1.0, 5.0, 30.0])
def test_random_logits_agree_with_the_float64_twin(scale: float) -> None:
    logits, targets = random_case(scale)
    # 2e-5: float32 log-softmax of 101 numbers of up to 100 nats, against float64.
    assert_close(next_token_metrics(logits, targets), twin(logits, targets), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("scale", [1.0, 5.0, 30.0])
def test_bfloat16_logits_with_their_many_ties_are_upcast_before_anything_is_computed(scale: float) -> None:
    logits, targets = random_case(scale, torch.bfloat16)
    assert len(set(logits[0].tolist())) < 101  # there are ties
    found = next_token_metrics(logits, targets)
    assert found.dtype == torch.float32
    assert_close(found, twin(logits, targets), rtol=1e-5, atol=2e-5)


def test_a_certain_distribution_has_neither_entropy_nor_variance() -> None:
    logits = torch.full((2, 101), -1000.0)
    logits[:, 7] = 1000.0
    found = next_token_metrics(logits, torch.tensor([7, 8]))
    assert_close(found[0], torch.zeros(6))
    assert_close(found[1], torch.tensor([-2000.0, 0.0, 0.0, math.log(2), 1.0, 0.0]))


def test_the_variance_of_a_nearly_constant_log_probability_does_not_cancel() -> None:
    logits = torch.zeros(1, 50_000)
    logits[0, ::2] = 1e-2
    # E[x^2] - E[x]^2 would subtract two numbers of 117 that differ by 2.5e-5: nothing is left in float32.
    found = next_token_metrics(logits, torch.tensor([0]))[0, VARIANCE].item()
    assert found == pytest.approx(2.5e-5, rel=1e-2)  # measured: 2e-3


def test_a_constant_added_to_the_logits_changes_nothing() -> None:
    logits, targets = random_case(3.0)
    logits = (logits * 64).round() / 64  # adding 256 is then exact
    assert_close(next_token_metrics(logits + 256, targets), next_token_metrics(logits, targets))


def test_the_order_of_the_vocabulary_changes_nothing() -> None:
    logits, targets = random_case(3.0)
    order = torch.randperm(101, generator=torch.Generator().manual_seed(1))
    permuted = next_token_metrics(logits[:, order], order.argsort()[targets])
    assert_close(permuted, next_token_metrics(logits, targets))


def test_a_row_has_the_same_metrics_alone_as_among_others() -> None:
    logits, targets = random_case(3.0)
    together = next_token_metrics(logits, targets)
    for row in range(len(logits)):
        alone = next_token_metrics(logits[row : row + 1], targets[row : row + 1])
        assert_close(alone[0], together[row])


@pytest.mark.parametrize(
    ("logits", "targets", "message"),
    [
        ((5, 7), (4,), r"got \(5, 7\) and \(4,\)"),  # the shift was forgotten
        ((2, 5, 7), (2, 5), r"got \(2, 5, 7\) and \(2, 5\)"),
        ((5, 7), (5, 1), r"got \(5, 7\) and \(5, 1\)"),
    ],
)
def test_shapes_that_do_not_pair_are_refused(logits: tuple[int, ...], targets: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        next_token_metrics(torch.zeros(logits), torch.zeros(targets, dtype=torch.long))
