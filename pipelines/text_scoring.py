"""Texts -> scores by a detector that reads the text itself: no language model of the feature stage, no cache."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import polars as pl

from detect.calibrated import CalibratedDetector
from detect.checked_scores import checked_scores
from detect.protocol import reads_text
from detect.text_reading import Reading, readings
from features.documents import Status, text_key
from features.errors import DetectorError
from pipelines.corpora import Row
from pipelines.decisions import NOT_JUDGED, as_read, check_fpr, described, judged, results_frame
from pipelines.extraction import BLOCK_ROWS, BLOCK_TOKENS

BLOCK_CHARACTERS = 4 * BLOCK_TOKENS
"""Characters in a block: about as much text as there is in a block of features."""


class TextScorer:
    """What `pipelines.scoring.Scorer` is, for a detector that reads texts: `Scorer.load` gives it for one.

    It reads of a text what the detector was trained to read, so it has no backbone, length limit or cache to choose.
    """

    def __init__(self, detector: CalibratedDetector, *, fpr: float | None = None, normalise: bool = True) -> None:
        """Put a loaded detector to work.

        Raises:
            UsageError: when the detector's calibration cannot support `fpr`, or there is none to support it.
            DetectorError: when the detector reads features.
        """
        if not reads_text(detector.detector):
            raise DetectorError(f"detector {detector.detector.name} reads features, not texts; use Scorer")
        self.fpr = check_fpr(detector, fpr)
        self.normalise = normalise
        self.detector = detector
        self.tokens_done = 0
        self._reader = detector.detector

    def score(self, texts: Sequence[str | None]) -> pl.DataFrame:
        """One row for each text, in order: columns `RESULT_SCHEMA`, the id its place.

        Raises:
            UsageError: for one string, whose characters would each be a text.
        """
        return results_frame(texts, self.score_rows)

    def score_rows(self, rows: Iterable[Row]) -> Iterator[list[dict[str, Any]]]:
        """Result rows of a corpus in its order, a block at a time: memory holds one block."""
        block: list[Row] = []
        characters = 0
        for row in as_read(rows, self.normalise):
            block.append(row)
            characters += len(row.document.text)
            if characters >= BLOCK_CHARACTERS or len(block) >= BLOCK_ROWS:
                yield self._score_block(block)
                block, characters = [], 0
        if block:
            yield self._score_block(block)

    def describe(self) -> dict[str, str]:
        """What produced a result: goes into the metadata of every output file."""
        return described(self.detector, self.fpr) | {"normalised": json.dumps(self.normalise)}

    def _score_block(self, block: list[Row]) -> list[dict[str, Any]]:
        texts = {text_key(row.document.text): row.document.text for row in block if row.status is Status.OK}
        read = dict(zip(texts, readings(self._reader, list(texts.values())), strict=True))
        long_enough = [key for key in texts if not read[key].too_short]
        found: dict[str, dict[str, Any]] = {}
        if long_enough:
            scores = checked_scores(self._reader, [texts[key] for key in long_enough])  # (distinct texts,)
            found = dict(zip(long_enough, judged(self.detector, self.fpr, scores), strict=True))
        self.tokens_done += sum(read[key].n_tokens or 0 for key in long_enough)
        return [self._result(row, read, found) for row in block]

    def _result(self, row: Row, read: dict[str, Reading], found: dict[str, dict[str, Any]]) -> dict[str, Any]:
        key = text_key(row.document.text) if row.status is Status.OK else None
        reading = read.get(key) if key else None
        status = Status.TOO_SHORT if reading is not None and reading.too_short else row.status
        result = {"id": row.document.id, "status": str(status), "n_tokens": reading.n_tokens if reading else None}
        if key is None or reading is None or key not in found:
            return result | NOT_JUDGED | row.carried
        return result | {"truncated": reading.truncated} | found[key] | row.carried
