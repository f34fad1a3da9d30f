"""What a detector's `score` gives, checked: also where its class is somebody else's."""

import inspect
import traceback
from collections.abc import Sequence

import numpy as np

from detect.protocol import Detector, TextDetector, reads_text
from features.errors import DetectorError, PawnError
from features.token_features import TokenFeatures

_OURS = ("features", "cache", "detect", "pipelines")


def checked_scores(detector: Detector | TextDetector, read: Sequence[TokenFeatures] | Sequence[str]) -> np.ndarray:
    """Scores of features, or of texts for a detector that reads these: (n,) float64, NaN and infinities as they come.

    Whatever NumPy can make float64 of will do: an array of another type, a list.

    Raises:
        DetectorError: when there are not as many scores as texts, they are no numbers, or a class of one's own raised
            anything. What our own classes raise goes on as it is: it is a fault of ours, or an error made to be read.
    """
    try:
        given = detector.score(read)  # type: ignore[arg-type]  # one union for both kinds: mypy cannot pair them
    except (PawnError, MemoryError):
        raise
    except Exception as error:
        if type(detector).__module__.partition(".")[0] in _OURS:
            raise
        raise DetectorError(
            f"detector {detector.name} failed on {_counted(detector, read)}: {type(error).__name__}: {error}"
            f"{_place(detector, error)}; its method score has to give one number for each"
        ) from error
    expected = f"expected {len(read)} numbers, one for each of {_counted(detector, read)}, as an array or a list"
    try:
        scores = np.asarray(given, dtype=np.float64)
    except Exception as error:  # whatever an object of another library raises when it is made an array
        raise DetectorError(
            f"the scores of detector {detector.name} are no numbers: {expected}, got {type(given).__name__} "
            f"({type(error).__name__}: {error})"
        ) from error
    if scores.shape != (len(read),):
        raise DetectorError(
            f"the scores of detector {detector.name} have the wrong shape: {expected}, got {type(given).__name__} of "
            f"shape {scores.shape}"
        )
    return scores


def _counted(detector: Detector | TextDetector, read: Sequence[object]) -> str:
    return f"{len(read)} {'texts' if reads_text(detector) else 'documents'}"


def _place(detector: Detector | TextDetector, error: Exception) -> str:
    """Where in the file of the detector's class it happened; nothing where that is not known."""
    try:
        source = inspect.getfile(type(detector))
    except (TypeError, OSError):
        return ""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == source]
    return f" ({source}, line {lines[-1]})" if lines else ""
