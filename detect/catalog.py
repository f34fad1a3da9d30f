"""Names -> detectors: those that ship, the zero-shot ones, and folders that `pawn train` wrote."""

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from cache.codec import FLOAT16, Codec
from cache.codec_catalog import codec_in
from detect.calibration import PROVENANCE_FILE, Calibration
from detect.pawn import PawnDetector
from detect.protocol import CARD_FILE, Detector
from detect.zero_shot import ZERO_SHOT
from features.errors import DetectorError, UsageError

PRETRAINED = Path(__file__).parent / "pretrained"
DEFAULT_DETECTOR = "pawn-smollm2-135m"
DEFAULT_BACKBONE = "smollm2-135m"


@dataclass(frozen=True)
class CalibratedDetector:
    """A detector ready for use: with the features that it reads and the human scores that judge its own.

    Attributes:
        detector: gives the scores.
        calibration: turns them into p-values; None where nobody calibrated: scores without decisions.
        backbone: name of the language model whose features it reads.
        fingerprint: fields of the features that it was trained on; empty where any will do.
        codec: form of the hidden states that it was trained on; None where any will do.
        identity: hashes that say exactly which detector this is, JSON-able.
    """

    detector: Detector
    calibration: Calibration | None
    backbone: str
    fingerprint: dict[str, Any]
    codec: Codec | None
    identity: dict[str, Any]

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


@dataclass(frozen=True)
class CatalogEntry:
    """One line of `pawn detectors`."""

    name: str
    kind: str
    summary: str


def catalog() -> list[CatalogEntry]:
    """Every detector that has a name: those that ship, then the zero-shot ones."""
    shipped = [
        CatalogEntry(folder.name, "pawn", "trained network on hidden states and metrics; ships with calibration")
        for folder in sorted(PRETRAINED.iterdir())
        if (folder / CARD_FILE).is_file()
    ]
    zero_shot = [
        CatalogEntry(name, "zero-shot", (detector.__doc__ or "").splitlines()[0])
        for name, detector in ZERO_SHOT.items()
    ]
    return shipped + zero_shot


def load_detector(name: str = DEFAULT_DETECTOR) -> CalibratedDetector:
    """The detector of a name or a folder.

    Raises:
        UsageError: when neither a detector nor a folder has that name.
        DetectorError: when the folder holds no sound detector.
    """
    if name in ZERO_SHOT:
        return CalibratedDetector(
            ZERO_SHOT[name](), None, DEFAULT_BACKBONE, {}, None, {"name": name, "kind": "zero-shot"}
        )
    folder = PRETRAINED / name if (PRETRAINED / name / CARD_FILE).is_file() else Path(name)
    if not folder.is_dir():
        names = [entry.name for entry in catalog()]
        close = get_close_matches(name, names, n=1)
        raise UsageError(
            f"no detector named {name!r} and no such folder"
            + (f"; did you mean {close[0]}?" if close else "")
            + f" Known: {', '.join(names)}. 'pawn train pawn' writes others."
        )
    detector = PawnDetector.load(folder)
    calibration = Calibration.load(folder) if (folder / PROVENANCE_FILE).is_file() else None
    return CalibratedDetector(
        detector=detector,
        calibration=calibration,
        backbone=detector.card.backbone["name"],
        fingerprint=detector.card.backbone["fingerprint"],
        codec=codec_in(folder, detector.card.backbone.get("codec", FLOAT16.name)),  # none named: older than codecs
        identity={
            "name": detector.name,
            "kind": "pawn",
            "weights_sha256": detector.weights_sha256(),
            "calibration_texts": None if calibration is None else len(calibration.scores),
        },
    )
