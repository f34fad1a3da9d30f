"""The few figures that a training reports of itself; those with intervals and slices are in `figures.py`."""

from collections.abc import Sequence

import numpy as np

from detect.calibration import Calibration
from detect.measures import auroc, tpr_at_fpr
from pipelines.figures import rate_name

FPRS = (0.01, 0.05)
TRADE_FPRS = (0.005, 0.01, 0.02, 0.05, 0.1)
"""What domains left out are judged at: how much more is found where more human texts may be accused."""


def figures(
    labels: np.ndarray,
    scores: np.ndarray,
    calibration: Calibration,
    n_tokens: np.ndarray | None = None,
    fprs: Sequence[float] = FPRS,
) -> dict[str, float]:
    """How well scores rank, and what decisions at thresholds fixed elsewhere give.

    Args:
        labels: (n,) 0 human, 1 machine; both must be there.
        scores: (n,) higher is more machine-like.
        calibration: human scores of other texts than these.
        n_tokens: (n,) how many tokens were scored; None where the calibration knows no lengths.
        fprs: the rates.

    Returns:
        `human`, `machine` (counts), `auroc`, and for each rate x of `fprs`: `tpr@x` (threshold that gives exactly x
        here), `real fpr@x` and `real tpr@x` (threshold fixed at x on the calibration texts).
    """
    found: dict[str, float] = {
        "human": int((labels == 0).sum()),
        "machine": int((labels == 1).sum()),
        "auroc": auroc(labels, scores),
    }
    p_values = calibration.p_values(scores, n_tokens)
    for fpr in fprs:
        found[f"tpr@{rate_name(fpr)}"] = tpr_at_fpr(labels, scores, fpr)
        found[f"real fpr@{rate_name(fpr)}"] = float((p_values[labels == 0] <= fpr).mean())
        found[f"real tpr@{rate_name(fpr)}"] = float((p_values[labels == 1] <= fpr).mean())
    return found
