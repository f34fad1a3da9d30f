"""Several detectors put to work together: those that read the same features share one language model."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cache.store import FeatureStore
from detect.calibrated import CalibratedDetector
from detect.catalog import load_detector
from detect.protocol import needs_observer, reads_text
from features.backbone import Backbone
from features.extractor import Extractor
from features.registry import resolve
from pipelines.extraction import load_extractor
from pipelines.scoring import Scorer, ScoringSettings
from pipelines.text_scoring import TextScorer

AnyScorer = Scorer | TextScorer


@dataclass
class LanguageModels:
    """Language models, what extracts their features and where these are kept: each once, when it is first asked for.

    Attributes:
        device: "cpu" or "cuda"; None: cuda when there is one.
        say: told of downloads.
    """

    device: str | None = None
    say: Callable[[str], None] = lambda message: None
    _backbones: dict[str, Backbone] = field(default_factory=dict)
    _extractors: dict[tuple[str, int, tuple[int, ...], str | None], Extractor] = field(default_factory=dict)
    _stores: dict[Path, FeatureStore] = field(default_factory=dict)

    def backbone(self, name: str) -> Backbone:
        """The language model of a name."""
        if name not in self._backbones:
            self._backbones[name] = Backbone.load(resolve(name, progress=self.say), device=self.device)
        return self._backbones[name]

    def extractor(self, name: str, max_length: int, layers: Sequence[int], observer: str | None) -> Extractor:
        """What extracts features of a language model, and of an observer beside it."""
        key = (name, max_length, tuple(layers), observer)
        if key not in self._extractors:
            self._extractors[key] = load_extractor(
                self.backbone(name), max_length=max_length, layers=layers, observer=observer
            )
        return self._extractors[key]

    def shared(self, store: FeatureStore) -> FeatureStore:
        """The store of the same folder that was asked for first: it knows what others wrote through it since."""
        return self._stores.setdefault(store.folder, store)


def load_scorers(
    detectors: Sequence[str],
    settings: ScoringSettings,
    say: Callable[[str], None],
    models: LanguageModels | None = None,
) -> dict[str, AnyScorer]:
    """What scores by each detector, under the detector's own name, or the one given where two have the same.

    Args:
        detectors: names of `pawn detectors` that are ready, folders, or `module:Class`; a repeated one counts once.
        settings: how to use them; its `detector` is not looked at, and its observer is for those that need one.
        say: told of downloads.
        models: where language models come from; default: loaded here.

    Raises:
        PawnError: as `Scorer.load`; before any language model is loaded where a detector cannot be.
    """
    models = models or LanguageModels(settings.device, say)
    loaded = {name: load_detector(name, device=settings.device, say=say) for name in dict.fromkeys(detectors)}
    observers = {name: _observer(detector, settings) for name, detector in loaded.items()}
    names = Counter(detector.detector.name for detector in loaded.values())
    return {
        given if names[own := detector.detector.name] > 1 else own: scorer_of(
            detector, settings, models, observers[given]
        )
        for given, detector in loaded.items()
    }


def _observer(detector: CalibratedDetector, settings: ScoringSettings) -> str | None:
    """The observer of a detector that needs one; the one given is for others of those compared where it needs none."""
    return detector.check_observer(settings.observer if needs_observer(detector.detector) else None)


def scorer_of(
    detector: CalibratedDetector, settings: ScoringSettings, models: LanguageModels, observer: str | None
) -> AnyScorer:
    """What scores by a loaded detector; `settings.detector` and `settings.observer` are not looked at."""
    if reads_text(detector.detector):
        return TextScorer(detector, fpr=settings.fpr, normalise=settings.normalise)
    name = settings.backbone or detector.backbone
    extractor = models.extractor(name, settings.max_length, detector.layers, observer)
    scorer = Scorer(detector, extractor, fpr=settings.fpr, cache=settings.cache, normalise=settings.normalise)
    scorer.store = None if scorer.store is None else models.shared(scorer.store)
    return scorer


def scores_of_texts(scorer: AnyScorer, texts: Sequence[str]) -> np.ndarray:
    """The score of each text, (n,) float64; NaN where a text has none (too short, no text)."""
    return scorer.score(list(texts))["score"].fill_null(float("nan")).to_numpy().astype(np.float64)


def what_scores(scorer: AnyScorer) -> dict[str, str]:
    """All that a score depends on beside the text, JSON-able: not when or on what it was calibrated."""
    return {
        name: value for name, value in scorer.describe().items() if name not in ("calibration", "fpr", "thresholds")
    }
