"""How well scores separate machine from human: AUROC, and the true-positive rate at a false-positive rate.

Labels are 0 human and 1 machine; a higher score is more machine-like; a text is flagged when its score is at
or above the threshold.
"""

import numpy as np
from numpy.typing import ArrayLike


def auroc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Chance that a random machine text outscores a random human one, ties counted half.

    Raises:
        ValueError: when a class is missing, a label is not 0 or 1, or a score is NaN.
    """
    from sklearn.metrics import roc_auc_score  # 0.7 s to import, and scoring has no use for it

    human, machine = _by_class(labels, scores)
    truth = np.repeat([0, 1], [len(human), len(machine)])
    return float(roc_auc_score(truth, np.concatenate([human, machine])))


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


def _by_class(labels: ArrayLike, scores: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Human and machine scores, float64."""
    truth, values = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if truth.ndim != 1 or truth.shape != values.shape:
        raise ValueError(f"expected one label a score, got shapes {truth.shape} and {values.shape}")
    if not np.isin(truth, (0, 1)).all():
        raise ValueError(f"labels are 0 (human) or 1 (machine), got {np.setdiff1d(truth, (0, 1)).tolist()}")
    if nan := int(np.isnan(values).sum()):
        raise ValueError(f"{nan} of {len(values)} scores are NaN; score those texts again or leave them out")
    human, machine = values[truth == 0], values[truth == 1]
    if not len(human) or not len(machine):
        raise ValueError(f"both classes are needed, got {len(human)} human and {len(machine)} machine texts")
    return human, machine
