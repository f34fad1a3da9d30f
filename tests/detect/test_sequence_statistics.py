"""Every statistic against plain loops and the standard library, on random rows, short ones and even ones."""

import cmath
import math
import statistics
from itertools import pairwise

import numpy as np
import pytest

from detect.sequence_statistics import (
    MOMENTS,
    autocorrelation,
    autocorrelations,
    correlations,
    deviations,
    gini,
    moments,
    paired_correlations,
    running_sums,
    sorted_quantiles,
    spectral_shares,
    window_means,
)

EVEN = [[0.0] * 7, [0.1] * 7, [0.1 * 3, 0.3] * 3 + [0.3], [-2e5 / 3] * 7]
"""Rows of numbers that differ by a rounding at most: 0.1 * 3 is not 0.3."""


def naive_moments(values: list[float]) -> list[float]:
    if not values:
        return [0.0] * 4
    mean, deviation = statistics.fmean(values), statistics.pstdev(values)
    if deviation == 0:
        return [mean, 0.0, 0.0, 0.0]
    powers = [sum((v - mean) ** k for v in values) / len(values) / deviation**k for k in (3, 4)]
    return [mean, deviation, powers[0], powers[1] - 3]


def naive_correlation(ones: list[float], others: list[float]) -> float:
    if len(ones) < 2 or len(set(ones)) == 1 or len(set(others)) == 1:
        return 0.0
    return statistics.correlation(ones, others)


def naive_autocorrelation(values: list[float], lag: int) -> float:
    return naive_correlation(values[:-lag], values[lag:])


def naive_window_means(values: list[float], width: int) -> list[float]:
    width = min(width, len(values))
    return [math.fsum(values[i : i + width]) / width for i in range(len(values) - width + 1)]


def naive_gini(values: list[float]) -> float:
    """Half the mean difference of two numbers drawn with replacement, as a share of the mean."""
    total = math.fsum(values)
    differences = math.fsum(abs(one - other) for one in values for other in values)
    return differences / (2 * len(values) * total) if total > 0 else 0.0


def naive_spectral_shares(values: list[float], edges: tuple[float, ...]) -> list[float]:
    """By the whole discrete Fourier sum, of which waves k and n - k are one frequency; it adds up to the variance."""
    count = len(values)
    if len(set(values)) == 1:
        return [0.0] * (len(edges) - 1)
    turn = [cmath.exp(-2j * cmath.pi * place / count) for place in range(count)]
    waves = [sum(v * turn[k * place % count] for place, v in enumerate(values)) for k in range(count)]
    parts = [(min(k, count - k) / count, abs(waves[k]) ** 2 / count**2) for k in range(1, count)]
    variance = statistics.pvariance(values)
    assert math.isclose(math.fsum(part for _, part in parts), variance, rel_tol=1e-9)
    return [math.fsum(part for f, part in parts if low <= f < high) / variance for low, high in pairwise(edges)]


def random_rows(count: int, length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, length]).gamma(0.7, 3.0, size=(count, length))


@pytest.mark.parametrize("length", [1, 2, 3, 8, 100, 1001])
def test_moments_are_those_of_the_standard_library(length: int) -> None:
    assert MOMENTS == ("mean", "std", "skewness", "kurtosis")
    for row in [*random_rows(3, length), *(random_rows(3, length) - 1e4)]:
        np.testing.assert_allclose(moments(row), naive_moments(row.tolist()), rtol=1e-7, atol=1e-7)


def test_moments_and_deviations_of_rows_are_those_of_each_by_itself() -> None:
    rows = np.stack([*random_rows(3, 50), np.full(50, 0.1)])
    assert moments(rows).tolist() == [moments(row).tolist() for row in rows]
    assert deviations(rows).tolist() == moments(rows)[:, 1].tolist()
    assert moments(np.empty((3, 0))).tolist() == [[0] * 4] * 3


def test_moments_of_a_normal_sample_and_of_one_with_a_long_tail() -> None:
    normal = np.random.default_rng(0).normal(2.0, 3.0, size=200_000)
    np.testing.assert_allclose(moments(normal), [2, 3, 0, 0], atol=0.05)
    tail = np.random.default_rng(0).exponential(size=1_000_000)
    np.testing.assert_allclose(moments(tail), [1, 1, 2, 6], rtol=0.05)


def test_equal_numbers_have_no_shape_and_no_correlation() -> None:
    # 0.1 has no exact float: the mean of many is off by a rounding, which must not be taken for a deviation.
    assert moments(np.full(1001, 0.1)).tolist() == [pytest.approx(0.1), 0, 0, 0]
    assert autocorrelation(np.full(1001, 0.1), 1) == 0
    assert autocorrelation(np.array([1.0, 2.0]), 1) == 0
    assert autocorrelation(np.array([1.0, 2.0, 3.0]), 1) == pytest.approx(1)
    assert moments(np.empty(0)).tolist() == [0, 0, 0, 0]
    assert moments(np.zeros(5)).tolist() == [0, 0, 0, 0]


def test_equal_numbers_of_any_count_and_value_have_no_shape() -> None:
    for value in np.random.default_rng(0).normal(size=50):
        for count in (2, 5, 7, 39, 100, 511):
            assert moments(np.full(count, value)).tolist() == [pytest.approx(value), 0, 0, 0], (value, count)


@pytest.mark.parametrize("length", [2, 3, 10, 257])
def test_correlations_are_those_of_plain_loops(length: int) -> None:
    ones, others = random_rows(6, length, seed=1), random_rows(6, length, seed=2)
    others[3:] -= 0.4 * ones[3:]
    expected = [naive_correlation(one, other) for one, other in zip(ones.tolist(), others.tolist(), strict=True)]
    np.testing.assert_allclose(correlations(ones, others), expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(correlations(ones, -3 * ones + 7), -1)


@pytest.mark.parametrize("length", [0, 1, 2, 3, 10, 257])
def test_correlations_by_pairs_are_those_of_plain_loops(length: int) -> None:
    rows = np.concatenate([random_rows(3, length), np.full((1, length), 0.1)])
    pairs = [(0, 1), (2, 0), (1, 1), (3, 2)]
    expected = [naive_correlation(rows[one].tolist(), rows[other].tolist()) for one, other in pairs]
    np.testing.assert_allclose(paired_correlations(rows, pairs), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("even", EVEN)
def test_what_is_even_correlates_with_nothing(even: list[float]) -> None:
    one, other = random_rows(1, 7), np.array([even])
    assert correlations(one, other).tolist() == correlations(other, one).tolist() == [0]
    assert correlations(other, other).tolist() == [0]
    # It is looked at row by row: a known one beside it is told.
    assert correlations(np.concatenate([other, one]), np.concatenate([one, one])).tolist() == [0, pytest.approx(1)]


@pytest.mark.parametrize("length", [0, 1])
def test_fewer_than_two_numbers_correlate_with_nothing(length: int) -> None:
    assert correlations(np.ones((3, length)), np.zeros((3, length))).tolist() == [0, 0, 0]


@pytest.mark.parametrize("lag", [1, 2, 5])
@pytest.mark.parametrize("longer", [2, 3, 30])
def test_autocorrelations_are_those_of_plain_loops(lag: int, longer: int) -> None:
    rows = np.cumsum(random_rows(4, lag + longer) - 2, axis=1)
    expected = [naive_autocorrelation(row, lag) for row in rows.tolist()]
    found = autocorrelations(rows, lag)
    assert np.all(found != 0)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    np.testing.assert_allclose([autocorrelation(row, lag) for row in rows], expected, rtol=1e-9)


@pytest.mark.parametrize("length", [1, 2, 3, 4])
def test_a_lag_that_leaves_fewer_than_two_pairs_has_no_autocorrelation(length: int) -> None:
    rows = random_rows(2, length)
    assert autocorrelations(rows, 3).tolist() == [0, 0]
    assert autocorrelation(rows[0], 3) == 0


@pytest.mark.parametrize("even", EVEN)
def test_what_is_even_but_for_its_end_has_no_autocorrelation(even: list[float]) -> None:
    assert autocorrelations(np.array([even, [*even[:-1], 5.0]]), 1).tolist() == [0, 0]


@pytest.mark.parametrize("width", [1, 2, 7, 16, 50])
@pytest.mark.parametrize("length", [1, 2, 7, 100])
def test_window_means_are_those_of_plain_loops(width: int, length: int) -> None:
    rows = random_rows(3, length)
    expected = [naive_window_means(row, width) for row in rows.tolist()]
    found = window_means(rows, width)
    assert found.shape == (3, max(length - width + 1, 1))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_window_means_of_one_number_are_the_row_and_of_zeros_are_zeros() -> None:
    np.testing.assert_allclose(window_means(np.array([[3.0, 1.0, 4.0]]), 1), [[3.0, 1.0, 4.0]])
    np.testing.assert_allclose(window_means(np.array([[3.0, 1.0, 4.0]]), 2), [[2.0, 2.5]])
    assert window_means(np.zeros((1, 5)), 2).tolist() == [[0] * 4]


@pytest.mark.parametrize("length", [1, 2, 9, 100])
def test_gini_is_half_the_mean_difference(length: int) -> None:
    rows = random_rows(4, length)
    expected = [naive_gini(row) for row in rows.tolist()]
    np.testing.assert_allclose(gini(np.sort(rows, axis=1)), expected, rtol=1e-9, atol=1e-12)


def test_gini_goes_from_all_alike_to_one_that_has_everything() -> None:
    rows = np.array([[0.1] * 50, [0.0] * 49 + [1.0], [0.0] * 50, [1.0] * 25 + [3.0] * 25])
    np.testing.assert_allclose(gini(rows), [0, 1 - 1 / 50, 0, 0.25], atol=1e-12)
    assert gini(np.empty((2, 0))).tolist() == [0, 0]


@pytest.mark.parametrize("length", [1, 2, 9, 100])
def test_quantiles_of_sorted_rows_are_numpys(length: int) -> None:
    rows, shares = random_rows(4, length) - 2, (0.0, 0.05, 0.5, 0.9, 1.0)
    np.testing.assert_allclose(
        sorted_quantiles(np.sort(rows, axis=1), shares), np.quantile(rows, shares, axis=1).T, rtol=1e-12
    )


def test_running_sums_begin_with_none_of_the_numbers() -> None:
    assert running_sums(np.array([[3.0, 1.0], [0.0, -2.0]])).tolist() == [[0, 3, 4], [0, 0, -2]]


@pytest.mark.parametrize("length", [1, 3, 4, 7, 8, 20, 99, 100, 101, 256])
def test_spectral_shares_are_those_of_the_discrete_fourier_sum(length: int) -> None:
    rows = random_rows(3, length)
    for edges in ((0.0, 0.03, 0.1, 0.25), (0.1, 0.3, 0.51)):
        expected = [naive_spectral_shares(row, edges) for row in rows.tolist()]
        np.testing.assert_allclose(spectral_shares(rows, edges), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("waves", "expected"), [(2, [1, 0, 0]), (3, [0, 1, 0]), (9, [0, 1, 0]), (10, [0, 0, 1]), (25, [0, 0, 0])]
)
def test_a_wave_is_in_the_share_of_its_frequency_and_of_its_lower_edge(waves: int, expected: list[float]) -> None:
    wave = np.cos(2 * np.pi * waves * np.arange(100) / 100)
    found = spectral_shares(np.stack([wave, 4 * wave - 9]), (0.0, 0.03, 0.1, 0.25))
    np.testing.assert_allclose(found, [expected] * 2, atol=1e-9)


@pytest.mark.parametrize("even", [*EVEN, [0.1], [0.1] * 2, [0.1] * 3])
def test_what_is_even_has_no_spectrum(even: list[float]) -> None:
    assert spectral_shares(np.array([even]), (0.0, 0.03, 0.1, 0.25)).tolist() == [[0, 0, 0]]
    both = spectral_shares(np.array([even, range(len(even))]), (0.0, 0.6))
    assert both.tolist() == [[0], [pytest.approx(1) if len(even) > 1 else 0]]
