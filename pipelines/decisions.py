"""Scores -> p-values and decisions, and what a result says of the detector behind it: what all scorers share."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import numpy as np
import polars as pl

from detect.adversarial.normalisation import normalised
from detect.calibrated import CalibratedDetector
from detect.calibration import BAND_STARTS
from features.documents import Document, Status, text_status
from features.errors import UsageError
from pipelines.corpora import Row
from pipelines.results import RESULT_SCHEMA

DEFAULT_FPR = 0.01
"""Share of human texts that may be flagged, where the caller names none."""

NOT_JUDGED: dict[str, Any] = dict.fromkeys(("truncated", "score", "p_value", "is_machine"))
"""Of a row without a score."""


def check_fpr(detector: CalibratedDetector, fpr: float | None) -> float | None:
    """The rate that decisions are made at: the one asked for, or the default where there is a calibration.

    Raises:
        UsageError: when the calibration cannot support the rate, or there is none.
    """
    if detector.calibration is None:
        if fpr is not None:
            raise UsageError(
                f"detector {detector.detector.name} has no calibration, so --fpr {fpr} cannot be kept; leave --fpr "
                "out to get scores without decisions, or use a detector that ships or that 'pawn train' wrote"
            )
        return None
    if fpr is None:
        fpr = max(DEFAULT_FPR, detector.calibration.smallest_fpr)
    detector.calibration.check_fpr(fpr)
    return fpr


def judged(
    detector: CalibratedDetector, fpr: float | None, scores: np.ndarray, n_tokens: Sequence[int] | None = None
) -> Iterator[dict[str, Any]]:
    """Score, p-value and decision of each of some scores, (n,), in order; None where lengths are not in tokens."""
    calibration = detector.calibration
    p_values = [None] * len(scores) if calibration is None else calibration.p_values(scores, n_tokens).tolist()
    for score, p_value in zip(scores.tolist(), p_values, strict=True):
        decision = None if p_value is None or fpr is None else p_value <= fpr
        yield {"score": score, "p_value": p_value, "is_machine": decision}


def as_read(rows: Iterable[Row], normalise: bool) -> Iterator[Row]:
    """Rows with their texts in the letters that a reader sees (`detect.adversarial.normalisation`), if asked for."""
    for row in rows:
        text = normalised(row.document.text) if normalise and row.status is Status.OK else row.document.text
        # A text of invisible characters alone is empty to its reader.
        yield (
            row if text == row.document.text else Row(replace(row.document, text=text), text_status(text), row.carried)
        )


def described(detector: CalibratedDetector, fpr: float | None) -> dict[str, str]:
    """Detector, calibration, rate, thresholds and version, for the metadata of every output file.

    Thresholds are by the tokens at which a band of length begins.
    """
    calibration = detector.calibration
    thresholds = None if calibration is None or fpr is None else calibration.band_thresholds(fpr).tolist()
    return {
        "detector": json.dumps(detector.identity),
        "calibration": json.dumps(None if calibration is None else calibration.provenance),
        "fpr": json.dumps(fpr),
        "thresholds": json.dumps(thresholds and dict(zip(map(str, BAND_STARTS), thresholds, strict=True))),
        "version": version("pawn-detect"),
    }


def results_frame(
    texts: Sequence[str | None], score_rows: Callable[[Iterable[Row]], Iterable[list[dict[str, Any]]]]
) -> pl.DataFrame:
    """What a scorer gives a list of texts, as a frame of `RESULT_SCHEMA`; ids are places in the list.

    Raises:
        UsageError: for one string, whose characters would each be a text.
    """
    if isinstance(texts, str):
        raise UsageError(f"expected a list of texts, got one string of {len(texts)} characters; give [text]")
    rows = (_row(number, text) for number, text in enumerate(texts))
    results = [result for block in score_rows(rows) for result in block]
    return pl.DataFrame(results, schema=RESULT_SCHEMA, orient="row")


def _row(number: int, text: object) -> Row:
    """A text of a list, whatever was given as one (pandas has NaN where a text is missing)."""
    if text is not None and not isinstance(text, str):
        return Row(Document(id=str(number), text=""), Status.NOT_TEXT, {})
    return Row(Document(id=str(number), text=text or ""), text_status(text), {})
