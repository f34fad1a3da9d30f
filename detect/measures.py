"""How well scores separate machine from human, and how far probabilities can be believed.

Labels are 0 human and 1 machine; a higher score is more machine-like; a text is flagged when its score is at
or above the threshold.
"""

import numpy as np
from numpy.typing import ArrayLike

CALIBRATION_BINS = 15
"""Bins of the expected calibration error (Guo et al. 2017, 1706.04599, use as many, of equal width)."""


def auroc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Chance that a random machine text outscores a random human one, ties counted half.

    Raises:
        ValueError: when a class is missing, a label is not 0 or 1, or a score is NaN or infinite.
    """
    from sklearn.metrics import roc_auc_score  # 0.7 s to import, and scoring has no use for it

    human, machine = _by_class(labels, scores)
    truth = np.repeat([0, 1], [len(human), len(machine)])
    return float(roc_auc_score(truth, np.concatenate([human, machine])))


def average_precision(labels: ArrayLike, scores: ArrayLike) -> float:
    """Precision at each threshold, averaged with the recall that it gains as weight; no interpolation.

    It depends on the share of machine texts: that share is what scores without meaning get.

    Raises:
        ValueError: as `auroc`.
    """
    from sklearn.metrics import average_precision_score  # as in auroc

    human, machine = _by_class(labels, scores)
    truth = np.repeat([0, 1], [len(human), len(machine)])
    return float(average_precision_score(truth, np.concatenate([human, machine])))


def tpr_at_fpr(labels: ArrayLike, scores: ArrayLike, fpr: float) -> float:
    """Highest true-positive rate of any threshold whose real false-positive rate is at most `fpr`.

    Exact, by order statistic, with no interpolation of the ROC curve. A machine text that ties with a human
    text which may not be flagged is not flagged either.

    Raises:
        ValueError: as `auroc`, or when `fpr` is not in [0, 1].
    """
    _, machine = _by_class(labels, scores)
    return float(np.mean(machine >= threshold_at_fpr(labels, scores, fpr)))


def threshold_at_fpr(labels: ArrayLike, scores: ArrayLike, fpr: float) -> float:
    """Smallest threshold whose real false-positive rate on these human scores is at most `fpr`.

    It describes the scores it was read from; a threshold for other texts is `Calibration.threshold`.

    Raises:
        ValueError: as `tpr_at_fpr`.
    """
    if not 0 <= fpr <= 1:
        raise ValueError(f"expected a false-positive rate in [0, 1], got {fpr}")
    human = np.sort(_by_class(labels, scores)[0])
    count = len(human)
    # Compared as the quotients that a reader would compute, not as floor(fpr * count): 0.29 * 100 < 29.
    allowed = int(np.searchsorted(np.arange(count + 1) / count, fpr, side="right")) - 1
    if allowed == count:
        return float("-inf")
    return float(np.nextafter(human[count - 1 - allowed], np.inf))


def fpr_at_threshold(labels: ArrayLike, scores: ArrayLike, threshold: float) -> float:
    """Share of the human texts that are flagged: scored at or above the threshold.

    Raises:
        ValueError: as `auroc`.
    """
    return float(np.mean(_by_class(labels, scores)[0] >= threshold))


def f1_at_threshold(labels: ArrayLike, scores: ArrayLike, threshold: float) -> float:
    """Harmonic mean of precision and recall of the machine class; 0 where no machine text is flagged.

    Raises:
        ValueError: as `auroc`.
    """
    human, machine = _by_class(labels, scores)
    found = int((machine >= threshold).sum())
    return 2 * found / (found + int((human >= threshold).sum()) + len(machine))


def accuracy_at_threshold(labels: ArrayLike, scores: ArrayLike, threshold: float) -> float:
    """Share of the texts, of either class, that are rightly flagged or rightly left.

    Raises:
        ValueError: as `auroc`.
    """
    human, machine = _by_class(labels, scores)
    return (int((machine >= threshold).sum()) + int((human < threshold).sum())) / (len(machine) + len(human))


def brier_score(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Mean squared distance of the probability of "machine" from the label, in [0, 1]; lower is better.

    Raises:
        ValueError: as `auroc`, or when a probability is outside [0, 1].
    """
    truth, values = _probabilities(labels, probabilities)
    return float(np.mean((values - truth) ** 2))


def expected_calibration_error(labels: ArrayLike, probabilities: ArrayLike, bins: int = CALIBRATION_BINS) -> float:
    """Mean distance of probability and frequency: texts fall in bins of equal mass by their probability.

    Sum over the bins of (texts in it / all) x |mean label - mean probability|. It is above 0 for finitely many
    texts even where every probability is right.

    Raises:
        ValueError: as `brier_score`.
    """
    truth, values = _probabilities(labels, probabilities)
    bias = np.bincount(equal_mass_bins(values, bins), weights=truth - values)
    return float(np.abs(bias).sum() / len(truth))


def equal_mass_bins(values: np.ndarray, bins: int = CALIBRATION_BINS) -> np.ndarray:
    """The bin of each value, (n,) to (n,) from 0: as many values in each as ties let, equal values in one."""
    below = np.searchsorted(np.sort(values), values, side="left")
    return bins * below // len(values)


def _probabilities(labels: ArrayLike, probabilities: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities of both classes, float64, checked."""
    _by_class(labels, probabilities)
    values = np.asarray(probabilities, dtype=np.float64)
    if outside := int(((values < 0) | (values > 1)).sum()):
        raise ValueError(f"{outside} of {len(values)} probabilities are outside [0, 1]; fit them: detect.probability")
    return np.asarray(labels, dtype=np.float64), values


def _by_class(labels: ArrayLike, scores: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Human and machine scores, float64."""
    truth, values = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if truth.ndim != 1 or truth.shape != values.shape:
        raise ValueError(f"expected one label a score, got shapes {truth.shape} and {values.shape}")
    if not np.isin(truth, (0, 1)).all():
        raise ValueError(f"labels are 0 (human) or 1 (machine), got {np.setdiff1d(truth, (0, 1)).tolist()}")
    if odd := int((~np.isfinite(values)).sum()):
        raise ValueError(
            f"{odd} of {len(values)} scores are NaN or infinite; score those texts again or leave them out"
        )
    human, machine = values[truth == 0], values[truth == 1]
    if not len(human) or not len(machine):
        raise ValueError(f"both classes are needed, got {len(human)} human and {len(machine)} machine texts")
    return human, machine
