"""The twin follows the paper in plain loops; its worked example is the one of the paper's figure 2 (s 3, 10 bins)."""

import math
import statistics
from itertools import pairwise

import numpy as np
import pytest

from detect.lastde import SHORTEST, diversity_entropies, lastde


def naive_diversity_entropy(values: list[float], scale: int, bins: int) -> float:
    averaged = [sum(values[i : i + scale]) / scale for i in range(len(values) - scale + 1)]
    windows = [averaged[i : i + 3] for i in range(len(averaged) - 2)]
    counts = [0] * bins
    for one, other in pairwise(windows):
        length = math.sqrt(sum(x * x for x in one)) * math.sqrt(sum(x * x for x in other))
        cosine = sum(x * y for x, y in zip(one, other, strict=True)) / length if length else 0.0
        counts[min(int((min(max(cosine, -1), 1) + 1) / 2 * bins), bins - 1)] += 1
    total = sum(counts)
    return -sum(c / total * math.log(c / total) for c in counts if c) / math.log(bins)


def naive_lastde(values: list[float]) -> float:
    entropies = [naive_diversity_entropy(values, scale, 10 * len(values)) for scale in range(1, 6)]
    return sum(values) / len(values) / statistics.stdev(entropies)


def log_probs(count: int, seed: int = 0) -> np.ndarray:
    return -np.random.default_rng(seed).gamma(0.5, 4.0, size=count)


@pytest.mark.parametrize("count", [8, 9, 31, 256, 511])
def test_lastde_is_the_paper_computed_in_plain_loops(count: int) -> None:
    values = log_probs(count, seed=count)
    np.testing.assert_allclose(lastde(values), naive_lastde(values.tolist()), rtol=1e-12)


def test_diversity_entropy_of_the_papers_example() -> None:
    # Cosines of 1 2 13 7 9 5 4 are 0.61, 0.70, 0.92 and 0.93: two bins of ten, two cosines each.
    values = np.array([1.0, 2, 13, 7, 9, 5, 4])
    assert diversity_entropies(values, [1], 10) == pytest.approx(math.log(2) / math.log(10))
    assert diversity_entropies(values, [2], 10) == 0
    assert diversity_entropies(values, [3], 10) == 0


@pytest.mark.parametrize("scale", [1, 2, 5])
@pytest.mark.parametrize("bins", [7, 400, 5110])
@pytest.mark.parametrize("seed", range(5))
def test_diversity_entropy_counts_as_numpys_histogram_does(seed: int, bins: int, scale: int) -> None:
    values = np.random.default_rng(seed).normal(-0.5, 1.5, size=511)  # of both signs: cosines from -1 to 1
    averaged = [values[i : i + scale].mean() for i in range(511 - scale + 1)]
    windows = np.stack([averaged[:-2], averaged[1:-1], averaged[2:]], axis=1)
    directions = windows / np.linalg.norm(windows, axis=1, keepdims=True)
    counts, _ = np.histogram((directions[:-1] * directions[1:]).sum(1), bins=bins, range=(-1, 1))
    assert counts.sum() == 511 - scale - 2
    shares = counts[counts > 0] / counts.sum()
    expected = -(shares * np.log(shares)).sum() / np.log(bins)
    np.testing.assert_allclose(diversity_entropies(values, [scale, 1], bins)[0], expected, rtol=1e-9)


def test_cosines_0_and_1_count_in_the_upper_of_two_bins() -> None:
    # The cosines are 1 (computed as just above it), 0.82, 0.71, and 0 twice, of windows with none but zeros.
    assert diversity_entropies(np.array([1.0, 1, 1, 1, 0, 0, 0, 0]), [1], 2) == 0


def test_a_sequence_times_a_constant_fluctuates_as_before() -> None:
    values = log_probs(100)
    assert lastde(values * 3) == pytest.approx(lastde(values) * 3)


def test_likelier_tokens_score_higher_at_the_same_fluctuation() -> None:
    assert lastde(log_probs(100) * 0.5) > lastde(log_probs(100))


@pytest.mark.parametrize("value", [-1.5, 0.0])
@pytest.mark.parametrize("count", [SHORTEST, 100])
def test_a_constant_sequence_counts_as_one_cosine_away_from_constant(value: float, count: int) -> None:
    others = count - 4
    shares = (1 / (others + 1), others / (others + 1))
    entropy = -sum(p * math.log(p) for p in shares) / math.log(10 * count)
    expected = value / statistics.stdev([entropy, 0, 0, 0, 0])
    assert lastde(np.full(count, value)) == pytest.approx(expected)


def test_windows_of_zeros_have_cosine_0() -> None:
    values = np.array([0.0] * 10 + [-1.0] * 10)
    np.testing.assert_allclose(lastde(values), naive_lastde(values.tolist()), rtol=1e-12)
