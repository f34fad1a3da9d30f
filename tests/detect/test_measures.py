import numpy as np
import pytest

from detect.measures import (
    accuracy_at_threshold,
    auroc,
    average_precision,
    brier_score,
    equal_mass_bins,
    expected_calibration_error,
    f1_at_threshold,
    fpr_at_threshold,
    threshold_at_fpr,
    tpr_at_fpr,
)


def naive_auroc(labels, scores):
    wins, pairs = 0.0, 0
    for truth, score in zip(labels, scores, strict=True):
        for other, against in zip(labels, scores, strict=True):
            if truth == 1 and other == 0:
                pairs += 1
                wins += 1.0 if score > against else 0.5 if score == against else 0.0
    return wins / pairs


def naive_tpr_at_fpr(labels, scores, fpr):
    """Best TPR over every threshold that can flag another set of texts, `inf` (flag nothing) included."""
    best = 0.0
    for threshold in [*scores, float("inf")]:
        flagged = [score >= threshold for score in scores]
        false = sum(f for f, truth in zip(flagged, labels, strict=True) if truth == 0) / labels.count(0)
        true = sum(f for f, truth in zip(flagged, labels, strict=True) if truth == 1) / labels.count(1)
        if false <= fpr:
            best = max(best, true)
    return best


def naive_average_precision(labels, scores):
    """Sum over the distinct scores, highest first, of precision there times the recall gained there."""
    total, before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        flagged = [truth for truth, score in zip(labels, scores, strict=True) if score >= threshold]
        recall = sum(flagged) / sum(labels)
        total += (recall - before) * sum(flagged) / len(flagged)
        before = recall
    return total


def make_cases():
    rng = np.random.default_rng(0)
    for human, machine in [(1, 1), (1, 5), (7, 1), (11, 13), (29, 17)]:
        labels = rng.permutation([0] * human + [1] * machine).tolist()
        yield labels, rng.normal(size=len(labels)).tolist()
        yield labels, rng.integers(0, 4, size=len(labels)).astype(float).tolist()  # many ties
        yield labels, [2.5] * len(labels)


@pytest.mark.parametrize(("labels", "scores"), list(make_cases()))
def test_auroc_counts_the_pairs_that_are_ordered_and_half_the_ties(labels, scores):
    assert auroc(labels, scores) == pytest.approx(naive_auroc(labels, scores), abs=1e-12)


@pytest.mark.parametrize(("labels", "scores"), list(make_cases()))
def test_tpr_at_fpr_is_the_best_of_all_thresholds(labels, scores):
    human = labels.count(0)
    rates = [0.0, 0.01, 0.05, 0.29, 0.5, 0.99, 1.0, *(count / human for count in range(human + 1))]
    for fpr in rates:
        assert tpr_at_fpr(labels, scores, fpr) == naive_tpr_at_fpr(labels, scores, fpr), fpr


@pytest.mark.parametrize(("labels", "scores"), list(make_cases()))
def test_threshold_at_fpr_is_the_smallest_that_keeps_the_rate(labels, scores):
    for fpr in (0.0, 0.1, 0.3, 0.9, 1.0):
        threshold = threshold_at_fpr(labels, scores, fpr)
        assert fpr_at_threshold(labels, scores, threshold) <= fpr
        if fpr < 1:
            assert fpr_at_threshold(labels, scores, np.nextafter(threshold, -np.inf)) > fpr


def test_rates_that_rounding_would_move_by_one_text_are_exact():
    # floor(0.29 * 100) is 28 in floating point, yet 29 of 100 texts are a rate of 0.29.
    labels, scores = [0] * 100 + [1], [*range(100), 70.5]
    assert tpr_at_fpr(labels, scores, 0.29) == 1.0
    assert tpr_at_fpr(labels, scores, 0.28) == 0.0


def test_constant_scores_flag_nothing_below_a_rate_of_one():
    labels, scores = [0, 0, 1, 1, 1], [0.5] * 5
    assert auroc(labels, scores) == 0.5
    assert tpr_at_fpr(labels, scores, 0.99) == 0.0
    assert tpr_at_fpr(labels, scores, 1.0) == 1.0


@pytest.mark.parametrize(("labels", "scores"), list(make_cases()))
def test_average_precision_weighs_precision_by_the_recall_gained(labels, scores):
    assert average_precision(labels, scores) == pytest.approx(naive_average_precision(labels, scores), abs=1e-12)


def test_f1_and_accuracy_count_the_threshold_itself_as_flagged():
    labels, scores = [0, 0, 0, 0, 1, 1], [1.0, 2.0, 2.0, 3.0, 2.0, 1.5]
    # Flagged at 2: three human texts and one of two machine texts; precision 1/4, recall 1/2.
    assert f1_at_threshold(labels, scores, 2.0) == pytest.approx(1 / 3)
    assert accuracy_at_threshold(labels, scores, 2.0) == pytest.approx(2 / 6)
    assert f1_at_threshold(labels, scores, 9.0) == 0.0
    assert accuracy_at_threshold(labels, scores, 9.0) == pytest.approx(4 / 6)


def test_brier_score_is_the_mean_squared_miss():
    assert brier_score([0, 0, 1], [0.0, 0.5, 0.7]) == pytest.approx((0.25 + 0.09) / 3)


def test_expected_calibration_error_compares_frequency_with_probability_in_each_bin():
    # Two bins of two: (0.1, 0.3) with no machine text, (0.6, 0.8) with two.
    assert expected_calibration_error([0, 0, 1, 1], [0.1, 0.3, 0.6, 0.8], bins=2) == pytest.approx(
        0.5 * 0.2 + 0.5 * 0.3
    )
    # One bin: 0.45 expected, 0.5 found.
    assert expected_calibration_error([0, 0, 1, 1], [0.1, 0.3, 0.6, 0.8], bins=1) == pytest.approx(0.05)


def test_equal_probabilities_share_a_bin():
    assert equal_mass_bins(np.array([0.5, 0.5, 0.5, 0.1, 0.9, 0.5]), bins=3).tolist() == [0, 0, 0, 0, 2, 0]
    assert equal_mass_bins(np.arange(30.0), bins=15).tolist() == [index // 2 for index in range(30)]
    assert expected_calibration_error([0, 1, 1, 0], [0.5] * 4) == 0.0


def test_what_is_no_probability_is_refused():
    for measure in (brier_score, expected_calibration_error):
        with pytest.raises(ValueError, match=r"2 of 3 probabilities are outside \[0, 1\]; fit them"):
            measure([0, 1, 1], [-0.1, 0.4, 1.1])


def test_fpr_at_threshold_counts_the_threshold_itself():
    assert fpr_at_threshold([0, 0, 0, 0, 1], [1.0, 2.0, 2.0, 3.0, 9.0], 2.0) == 0.75


@pytest.mark.parametrize(
    "measure",
    [
        auroc,
        lambda labels, scores: tpr_at_fpr(labels, scores, 0.1),
        lambda labels, scores: fpr_at_threshold(labels, scores, 0.1),
        lambda labels, scores: f1_at_threshold(labels, scores, 0.1),
        lambda labels, scores: accuracy_at_threshold(labels, scores, 0.1),
        average_precision,
        brier_score,
        expected_calibration_error,
    ],
)
@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([0, 0, 0], [1.0, 2.0, 3.0], "got 3 human and 0 machine texts"),
        ([1, 1], [1.0, 2.0], "got 0 human and 2 machine texts"),
        ([], [], "got 0 human and 0 machine texts"),
        ([0, 1, 1], [1.0, 2.0], r"got shapes \(3,\) and \(2,\)"),
        ([0, 1, 2, -1], [1.0, 2.0, 3.0, 4.0], r"0 \(human\) or 1 \(machine\), got \[-1, 2\]"),
        ([0, 1, 1], [1.0, np.nan, np.nan], "2 of 3 scores are NaN or infinite"),
        ([0, 0, 1], [np.inf, 1.0, -np.inf], "2 of 3 scores are NaN or infinite"),
    ],
)
def test_labels_and_scores_that_cannot_be_measured_are_refused(measure, labels, scores, message):
    with pytest.raises(ValueError, match=message):
        measure(labels, scores)


def test_rates_outside_zero_to_one_are_refused():
    with pytest.raises(ValueError, match=r"in \[0, 1\], got 5"):
        tpr_at_fpr([0, 1], [0.0, 1.0], 5)
    with pytest.raises(ValueError, match=r"in \[0, 1\], got nan"):
        tpr_at_fpr([0, 1], [0.0, 1.0], float("nan"))
