"""Human scores of a calibration set: they turn a score into a p-value, and a rate into a threshold."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
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


BAND_STARTS = (0, 48, 96, 192)
"""Tokens at which bands of length begin: a short text's score strays further, so it is judged among short texts."""

CAUTIONS = (1, 2, 3, 4)
"""What p-values by domain may be multiplied by: an unknown domain may be worse than the worst of those at hand. More
would leave nothing to find."""

UNMEASURED_CAUTION = 2
"""What they are multiplied by where domains are too few to tell. Ensembles of ours needed 1 and 2 with five of them."""

TOLERATED = 3
"""How many times as often as asked the human texts of a domain that others judge may be flagged. At most one domain of
a band can be above 1, the one that would fix the threshold itself, so that the mean stays below 2."""

KEPT_RATES = (0.01, 0.05)
"""False-positive rates by which the caution is chosen."""

SMALLEST_CELL = 200
"""Human texts that a band or a domain in it must have to be judged by itself: 1% needs 99 times the caution."""


@dataclass(frozen=True, eq=False)
class Calibration:
    """What human texts score under one detector.

    The p-value of a text is the share of human texts that score at least as high, the text itself counted
    among them: for a human text exchangeable with the calibration set, P(p <= fpr) <= fpr at every size of
    the set (a conformal p-value).

    Where lengths are known a text is compared with human texts of its band of length only, and where domains are known
    with those of each domain by itself, the largest p-value being its own: human texts of the domain in which the
    detector errs most are the ones that an unknown domain might be like (p-values by group: Mondrian conformal
    prediction, Vovk et al. 2003). By domain they are multiplied by `caution`, as an unknown domain may be worse still:
    each domain in turn takes the part of the unknown one, and the first of `CAUTIONS` is taken that lets at most
    `TOLERATED` times `KEPT_RATES` of its human texts be flagged in any band of length (the last, where none does). What
    domains of few texts need may leave no p-value as small as 1%. A band of fewer than `SMALLEST_CELL` texts is judged
    by the nearest with that many, and where no band has them by the one with most.

    `caution` comes back from a folder as it was saved.

    `provenance` is JSON-able and says where the scores came from: `corpora`, the detector's `weights_sha256`, when
    they were `created`.

    Raises:
        ValueError: when there is no score, one is not a finite number, the lengths of the arrays differ, or the caution
            is below 1.
    """

    scores: np.ndarray  # (n,) float64, ascending, read-only
    provenance: dict[str, Any]
    domains: np.ndarray | None = None  # (n,) of str
    n_tokens: np.ndarray | None = None  # (n,) int: how many tokens of each text were scored
    caution: int = 0  # what p-values are multiplied by; by default what these texts show to be needed
    _cells: list[list[np.ndarray]] = field(init=False, repr=False)  # of each band: ascending scores of each domain

    def __post_init__(self) -> None:
        scores = np.asarray(self.scores, dtype=np.float64)
        if scores.ndim != 1 or not len(scores):
            raise ValueError(f"a calibration needs at least 1 human score, got shape {scores.shape}")
        if bad := int((~np.isfinite(scores)).sum()):
            raise ValueError(f"{bad} of {len(scores)} calibration scores are not finite numbers")
        order = np.argsort(scores, kind="stable")
        for name, values in (("scores", scores), ("domains", self.domains), ("n_tokens", self.n_tokens)):
            if values is None:
                continue
            if len(values) != len(scores):
                raise ValueError(f"expected {name} of {len(scores)} texts, got {len(values)}")
            ordered = np.asarray(values)[order]
            ordered.flags.writeable = False
            object.__setattr__(self, name, ordered)
        object.__setattr__(self, "_cells", self._grouped())
        if self.caution < 0:
            raise ValueError(f"expected a caution of 1 or more, got {self.caution}")
        if not self.caution:
            object.__setattr__(self, "caution", 1 if self.domains is None else _needed_caution(self._cells))

    def _grouped(self) -> list[list[np.ndarray]]:
        own, bands = self._band(self.n_tokens), range(len(BAND_STARTS))
        held = [band for band in bands if (own == band).sum() >= SMALLEST_CELL]
        if not held:  # a text has at most one score in a band: only within one are scores those of so many texts
            held = [int(np.bincount(own).argmax())]
        found = {band: self._of_domains(own == band) for band in held}
        return [found[min(held, key=lambda other: abs(other - band))] for band in bands]

    def _of_domains(self, chosen: np.ndarray) -> list[np.ndarray]:
        """The chosen scores of each domain; small domains are one, which joins another where it is still small."""
        scores = self.scores[chosen]
        if self.domains is None:
            return [scores]
        domains = self.domains[chosen]
        cells = sorted((scores[domains == name] for name in np.unique(domains)), key=len)
        small = [cell for cell in cells if len(cell) < SMALLEST_CELL]
        large = cells[len(small) :]
        if not small:
            return large
        rest = np.sort(np.concatenate(small))
        if large and len(rest) < SMALLEST_CELL:
            return [np.sort(np.concatenate([rest, large[0]])), *large[1:]]
        return [rest, *large]

    def _band(self, n_tokens: np.ndarray | None) -> np.ndarray:
        """The band of each length, (texts,); the first where lengths are unknown."""
        lengths = np.zeros(len(self.scores), dtype=int) if n_tokens is None else n_tokens
        return band_of(lengths)

    @property
    def smallest_fpr(self) -> float:
        """The p-value of a score above every human one: 1 / (n + 1) of the smallest set of texts compared with.

        By domain, `caution` times that.
        """
        return self.caution / (self.fewest + 1)

    @property
    def fewest(self) -> int:
        """Human texts in the smallest set that is compared with."""
        return min(len(cell) for cells in self._cells for cell in cells)

    def p_values(self, scores: ArrayLike, n_tokens: ArrayLike | None = None) -> np.ndarray:
        """(1 + human scores at or above each score) / (n + 1): (docs,) to (docs,) float64.

        By domain, the largest of them all, times `caution` and at most 1.

        Args:
            scores: of texts, (docs,).
            n_tokens: how many tokens of each were scored, (docs,); None: the largest p-value of all bands.

        Raises:
            ValueError: when a score is NaN.
        """
        values = np.asarray(scores, dtype=np.float64)
        if nan := int(np.isnan(values).sum()):
            raise ValueError(f"{nan} of {values.size} scores are NaN and have no p-value")
        by_cell = ([_p_values(cell, values, self.caution) for cell in cells] for cells in self._cells)
        by_band = np.stack([np.max(cells, axis=0) for cells in by_cell])
        if n_tokens is None:
            return np.asarray(by_band.max(axis=0))
        return np.asarray(by_band[self._band(np.asarray(n_tokens)), np.arange(len(values))])

    def threshold(self, fpr: float) -> float:
        """Smallest score that is flagged at this rate at any length: the largest of `thresholds`.

        Raises:
            UsageError: when `fpr` is one that this calibration cannot promise.
        """
        return float(self.band_thresholds(fpr).max())

    def thresholds(self, fpr: float, n_tokens: ArrayLike) -> np.ndarray:
        """The threshold at each of some lengths, (docs,) to (docs,): `score >= threshold` just when `p_value <= fpr`.

        Raises:
            UsageError: when `fpr` is one that this calibration cannot promise.
        """
        return self.band_thresholds(fpr)[self._band(np.asarray(n_tokens))]

    def band_thresholds(self, fpr: float) -> np.ndarray:
        """The threshold of each band of `BAND_STARTS`: (bands,).

        Raises:
            UsageError: when `fpr` is one that this calibration cannot promise.
        """
        self.check_fpr(fpr)
        return np.array([max(_threshold(cell, fpr, self.caution) for cell in cells) for cells in self._cells])

    def check_fpr(self, fpr: float) -> None:
        """Refuse a false-positive rate outside (0, 1) or finer than the calibration set resolves.

        Raises:
            UsageError: naming the smallest rate and the number of human texts.
        """
        if not 0 < fpr < 1:
            raise UsageError(f"expected a false-positive rate between 0 and 1, got {fpr}; try 0.01")
        if fpr < self.smallest_fpr:
            raise UsageError(
                f"a false-positive rate of {fpr} cannot be promised from {self.fewest} human texts: the "
                f"smallest is {self.smallest_fpr:.6g}; ask for that or calibrate on more human texts"
            )

    def save(self, directory: Path) -> None:
        """Write the scores and, last, their provenance with the scores' hash."""
        arrays = {"scores": self.scores}
        names: list[str] = []
        if self.domains is not None:
            found, arrays["domains"] = np.unique(self.domains, return_inverse=True)
            names = found.tolist()
        if self.n_tokens is not None:
            arrays["n_tokens"] = self.n_tokens.astype(np.int32)
        content = save(arrays)
        write_bytes(directory / SCORES_FILE, content)
        record = {
            "format_version": FORMAT_VERSION,
            "count": len(self.scores),
            "scores_sha256": hashlib.sha256(content).hexdigest(),
            "domains": names,
            "caution": self.caution,
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
            arrays = load(content)
            domains = np.array(record["domains"])[arrays["domains"]] if "domains" in arrays else None
            caution = int(record.get("caution", 0))  # not known to calibrations of before 0.2
            return cls(arrays["scores"], record["provenance"], domains, arrays.get("n_tokens"), caution)
        except (SafetensorError, KeyError, IndexError, TypeError, ValueError) as error:
            raise DetectorError(f"{path} holds no calibration ({error}); calibrate again") from error


def band_of(n_tokens: ArrayLike) -> np.ndarray:
    """The number of the band of `BAND_STARTS` that each length is in: (texts,) to (texts,)."""
    return np.asarray(np.searchsorted(BAND_STARTS, n_tokens, side="right") - 1)


def _needed_caution(bands: Sequence[Sequence[np.ndarray]]) -> int:
    """The first of `CAUTIONS` with which each domain of each band keeps `KEPT_RATES` as `Calibration` says."""
    left_out: list[np.ndarray] = []  # the p-values of each cell among the other domains of its band
    for number, cells in enumerate(bands):
        if len(cells) < 3 or any(cells is other for other in bands[:number]):
            continue
        for place, cell in enumerate(cells):
            others = [*cells[:place], *cells[place + 1 :]]
            left_out.append(np.max([_p_values(other, cell, 1) for other in others], axis=0))
    if not left_out:
        return UNMEASURED_CAUTION
    for caution in CAUTIONS:
        flagged = np.array([[(caution * values <= rate).mean() for values in left_out] for rate in KEPT_RATES])
        if (flagged / np.array(KEPT_RATES)[:, None]).max() <= TOLERATED:
            return caution
    return CAUTIONS[-1]


def _p_values(human: np.ndarray, values: np.ndarray, caution: int) -> np.ndarray:
    """p-values of scores, (docs,), among ascending human ones."""
    above = 1 + len(human) - np.searchsorted(human, values, side="left")
    return np.minimum(1.0, caution * above / (len(human) + 1))


def _threshold(human: np.ndarray, fpr: float, caution: int) -> float:
    """The smallest score whose p-value among ascending human ones is at most the rate."""
    # The quotients themselves are compared with fpr, as _p_values gives them: no floor of a product.
    quotients = np.minimum(1.0, caution * (1 + np.arange(len(human) + 1)) / (len(human) + 1))
    at_or_above = int(np.searchsorted(quotients, fpr, side="right")) - 1
    return float(np.nextafter(human[len(human) - 1 - at_or_above], np.inf))
