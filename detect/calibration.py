"""Human scores of a calibration set: they turn a score into a p-value, and a rate into a threshold."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from safetensors import SafetensorError
from safetensors.numpy import load, save

from detect.protocol import FORMAT_VERSION, read_bytes, read_json_object, write_bytes
from features.errors import DetectorError, UsageError

SCORES_FILE = "calibration.safetensors"
PROVENANCE_FILE = "calibration.json"


@dataclass(frozen=True, eq=False)
class Calibration:
    """What human texts score under one detector.

    The p-value of a text is the share of human texts that score at least as high, the text itself counted
    among them: for a human text exchangeable with the calibration set, P(p <= fpr) <= fpr at every size of
    the set (a conformal p-value).

    `scores` are kept sorted, float64, read-only. `provenance` is JSON-able and says where they came from:
    `corpora`, the detector's `weights_sha256`, when they were `created`.

    Raises:
        ValueError: when there is no score, or one is not a finite number.
    """

    scores: np.ndarray  # (n,) float64, ascending
    provenance: dict[str, Any]

    def __post_init__(self) -> None:
        scores = np.sort(np.asarray(self.scores, dtype=np.float64))
        if scores.ndim != 1 or not len(scores):
            raise ValueError(f"a calibration needs at least 1 human score, got shape {scores.shape}")
        if bad := int((~np.isfinite(scores)).sum()):
            raise ValueError(f"{bad} of {len(scores)} calibration scores are not finite numbers")
        scores.flags.writeable = False
        object.__setattr__(self, "scores", scores)

    @property
    def smallest_fpr(self) -> float:
        """1 / (n + 1): the p-value of a score above every human one. No smaller rate can be promised."""
        return 1 / (len(self.scores) + 1)

    def p_values(self, scores: ArrayLike) -> np.ndarray:
        """(1 + human scores at or above each score) / (n + 1): (docs,) to (docs,) float64.

        Raises:
            ValueError: when a score is NaN.
        """
        values = np.asarray(scores, dtype=np.float64)
        if nan := int(np.isnan(values).sum()):
            raise ValueError(f"{nan} of {values.size} scores are NaN and have no p-value")
        at_or_above = len(self.scores) - np.searchsorted(self.scores, values, side="left")
        return self._p_value_of_count(at_or_above)

    def threshold(self, fpr: float) -> float:
        """Smallest score that is flagged at this rate: `score >= threshold` exactly when `p_value <= fpr`.

        Raises:
            UsageError: when `fpr` is one that this calibration cannot promise.
        """
        self.check_fpr(fpr)
        count = len(self.scores)
        # The quotients themselves are compared with fpr, as p_values gives them: no floor of a product.
        p_values = self._p_value_of_count(np.arange(count + 1))
        at_or_above = int(np.searchsorted(p_values, fpr, side="right")) - 1
        return float(np.nextafter(self.scores[count - 1 - at_or_above], np.inf))

    def check_fpr(self, fpr: float) -> None:
        """Refuse a false-positive rate outside (0, 1) or finer than the calibration set resolves.

        Raises:
            UsageError: naming the smallest rate and the number of human texts.
        """
        if not 0 < fpr < 1:
            raise UsageError(f"expected a false-positive rate between 0 and 1, got {fpr}; try 0.01")
        if fpr < self.smallest_fpr:
            raise UsageError(
                f"a false-positive rate of {fpr} cannot be promised from {len(self.scores)} human texts: the "
                f"smallest is {self.smallest_fpr:.6g}; ask for that or calibrate on more human texts"
            )

    def save(self, directory: Path) -> None:
        """Write the scores and, last, their provenance with the scores' hash."""
        content = save({"scores": self.scores})
        write_bytes(directory / SCORES_FILE, content)
        record = {
            "format_version": FORMAT_VERSION,
            "count": len(self.scores),
            "scores_sha256": hashlib.sha256(content).hexdigest(),
            "provenance": self.provenance,
        }
        write_bytes(directory / PROVENANCE_FILE, (json.dumps(record, indent=2) + "\n").encode())

    @classmethod
    def load(cls, directory: Path) -> "Calibration":
        """Read what `save` wrote.

        Raises:
            DetectorError: when a file is missing, of another format version, or not what was saved.
        """
        record = read_json_object(directory / PROVENANCE_FILE)
        path = directory / SCORES_FILE
        if record.get("format_version") != FORMAT_VERSION:
            raise DetectorError(
                f"{directory / PROVENANCE_FILE} has format version {record.get('format_version')!r}, this "
                f"program reads {FORMAT_VERSION}; calibrate again"
            )
        content = read_bytes(path)
        if (found := hashlib.sha256(content).hexdigest()) != record.get("scores_sha256"):
            raise DetectorError(
                f"{path} has SHA-256 {found}, its record says {record.get('scores_sha256')}; calibrate again"
            )
        try:
            return cls(load(content)["scores"], record["provenance"])
        except (SafetensorError, KeyError, ValueError) as error:
            raise DetectorError(f"{path} holds no calibration ({error}); calibrate again") from error

    def _p_value_of_count(self, at_or_above: np.ndarray) -> np.ndarray:
        return (1 + at_or_above) / (len(self.scores) + 1)
