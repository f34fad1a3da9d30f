"""A detector ready for use: what it reads, what it refuses, and the human scores that judge its own."""

from dataclasses import dataclass
from typing import Any

from cache.codec import Codec
from detect.calibration import Calibration
from detect.protocol import Detector, TextDetector, needs_hidden, needs_observer
from features.errors import DetectorError, UsageError


@dataclass(frozen=True)
class CalibratedDetector:
    """A detector ready for use: with the features that it reads and the human scores that judge its own.

    Attributes:
        detector: gives the scores.
        calibration: turns them into p-values; None where nobody calibrated: scores without decisions.
        backbone: name of the language model whose features it reads; empty for one that reads texts themselves.
        fingerprint: fields of the features that it was trained on; empty where any will do.
        codec: form of the hidden states that it was trained on; None where any will do.
        identity: hashes that say exactly which detector this is, JSON-able.
        observer: name of the second language model, where its features hold metrics of two.
    """

    detector: Detector | TextDetector
    calibration: Calibration | None
    backbone: str
    fingerprint: dict[str, Any]
    codec: Codec | None
    identity: dict[str, Any]
    observer: str | None = None

    @property
    def layers(self) -> list[int]:
        """Layers whose hidden states it reads; empty for the last alone, and where it reads none."""
        return list(self.fingerprint.get("layers", ())) if needs_hidden(self.detector) else []

    def check_observer(self, given: str | None) -> str | None:
        """The observer to run beside the language model: the one given, or the one that it was trained with.

        Raises:
            UsageError: when it needs one and none is known, or needs none and one is given.
        """
        if not needs_observer(self.detector):
            if given is not None:
                raise UsageError(f"detector {self.detector.name} reads one language model; leave --observer out")
            return None
        if (observer := given or self.observer) is None:
            raise UsageError(
                f"detector {self.detector.name} compares two language models: name the second with --observer NAME, or "
                "--observer @LAYER for an early exit of the backbone"
            )
        return observer

    def check_features(self, fingerprint: dict[str, Any]) -> None:
        """Refuse features of another model than the one trained on.

        The number format and the length limit may differ: they move a score within the noise of bfloat16, or
        change how much of a text is read, and both are written beside every result.

        Raises:
            DetectorError: naming what differs.
        """
        for field in ("weights_id", "tokenizer_id", "metric_version", "text_version"):
            expected = self.fingerprint.get(field, fingerprint[field])
            if fingerprint[field] != expected:
                raise DetectorError(
                    f"detector {self.detector.name} was trained on features with {field} {expected!r}, these have "
                    f"{fingerprint[field]!r}; use its backbone: --backbone {self.backbone}"
                )
        if not self.fingerprint:
            return
        if (found := fingerprint.get("layers", [])) != self.layers and needs_hidden(self.detector):
            raise DetectorError(
                f"detector {self.detector.name} reads hidden states of {_layers(self.layers)}, these features have "
                f"{_layers(found)}; extract those that it reads"
            )
        if needs_observer(self.detector) and fingerprint.get("observer") != self.fingerprint.get("observer"):
            raise DetectorError(
                f"detector {self.detector.name} was trained with observer {self.fingerprint.get('observer')!r}, these "
                f"features have {fingerprint.get('observer')!r}; use --observer {self.observer}"
            )


def _layers(layers: list[int]) -> str:
    return f"layers {', '.join(map(str, layers))}" if layers else "the last layer"
