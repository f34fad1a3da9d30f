"""Labelled files -> a trained, calibrated detector of features in a folder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cache.codec_catalog import codec_named
from cache.store import FeatureStore
from detect.catalog import LAYERS, TWO_MODELS, maker, reads
from detect.trained import DetectorCard, Progress, TrainableDetector, band_scores, recipe_of, silent
from features.backbone import Backbone
from features.documents import Document
from features.errors import UsageError
from features.registry import resolve
from pipelines.corpora import Corpus
from pipelines.extraction import load_extractor, spread_layers
from pipelines.extraction_run import features_record
from pipelines.fitting import (
    BandScores,
    DetectorFacts,
    LabelledRequest,
    TrainedDetector,
    check_only_learnt,
    check_output,
    finish,
    fit_calibrated,
    judged_of,
    say_texts,
)
from pipelines.options import cache_directory
from pipelines.tracked_data import record_inputs
from pipelines.tracking import UNTRACKED, Run, Tracker
from pipelines.training_data import RowsProgress, TrainingData, backbone_record, corpora_record, load_training_data

Maker = Callable[[DetectorCard], TrainableDetector]
"""Makes an unfitted detector for a card; see `detect.catalog.maker`."""


@dataclass(frozen=True)
class FeatureLearner:
    """Detectors of a recipe on documents whose features are cached; a `fitting.Learner`."""

    data: TrainingData
    make: Maker
    facts: DetectorFacts

    @property
    def documents(self) -> Sequence[Document]:
        """All of them, each text once."""
        return self.data.documents

    @property
    def labels(self) -> np.ndarray:
        """(n,) of 0 human and 1 machine."""
        return self.data.labels

    def new(self) -> TrainableDetector:
        """An unfitted detector."""
        return self.make(DetectorCard(name=self.facts.name, backbone=self.facts.backbone))

    def fit(
        self, detector: TrainableDetector, parts: Mapping[str, np.ndarray], progress: Progress, held_out: str | None
    ) -> None:
        """Train an unfitted detector in place."""
        detector.fit(self.data.part(parts["train"]), self.data.part(parts["validation"]), progress)

    def band_scores(self, detector: TrainableDetector, indices: np.ndarray) -> BandScores:
        """A trained detector's scores of some documents at every length that they reach."""
        return BandScores(*band_scores(detector, self.data.corpus.subset(indices.tolist())))


def train_detector(
    data: TrainingData,
    make: Maker,
    facts: DetectorFacts,
    *,
    seed: int = 0,
    left_out_domains: bool = False,
    progress: Progress = silent,
    run: Run = UNTRACKED,
    judged: np.ndarray | None = None,
) -> TrainedDetector:
    """Split, train, calibrate on human texts held out, measure on others.

    Args:
        data: labelled documents.
        make: gives unfitted detectors, one for each training.
        facts: for the record.
        seed: of the split by sources.
        left_out_domains: calibrate on domains left out (see `fitting.fit_calibrated`).
        progress: told of steps and epochs.
        run: keeps the course of the training and the figures.
        judged: (n,) whether a document may calibrate and measure; None: every one.

    Raises:
        InputError: when a part of the split lacks a class, or there are too few domains to leave one out.
    """
    learner = FeatureLearner(data, make, facts)
    detector = learner.new()
    calibration = fit_calibrated(
        learner,
        detector,
        facts,
        seed=seed,
        left_out_domains=left_out_domains,
        progress=progress,
        run=run,
        judged=judged,
    )
    return TrainedDetector(detector, calibration, data.corpus.codec)


@dataclass(frozen=True, kw_only=True)
class TrainingRequest(LabelledRequest):
    """What `pawn train NAME` was asked for, for a detector of features; `settings` are those of `maker`.

    `layers` are those whose hidden states it reads: by default the last, and three where it is made for several.
    """

    cache: str | None
    codec: str
    backbone: str
    max_length: int
    device: str | None
    layers: Sequence[int] = ()
    observer: str | None = None

    def reads(self, what: str) -> bool:
        """Whether the detector, or a member where it is made of several, is one that the catalog says reads this."""
        return reads(what, self.detector, self.settings)

    def check_observer(self) -> None:
        """Refuse members of two language models where no second one is named.

        Raises:
            UsageError: then.
        """
        if self.reads(TWO_MODELS) and not self.observer:
            raise UsageError(
                "a member compares two language models: name the second with --observer NAME, or --observer @LAYER "
                "for an early exit of the backbone"
            )


def run_training(
    request: TrainingRequest,
    *,
    say: Callable[[str], None],
    rows_line: RowsProgress = lambda rows, total, tokens: None,
    progress: Progress = silent,
    tracker: Tracker = UNTRACKED,
) -> int:
    """Extract, train, calibrate, save, and record it as a run; returns how many rows could not be used.

    Args:
        request: what to do.
        say: told what a person should know.
        rows_line: told of extraction.
        progress: told of training.
        tracker: makes the run, which gets the detector once it is saved.

    Raises:
        PawnError: for everything that can be wrong with data, backbone or output.
    """
    make = maker(request.detector, seed=request.seed, **request.settings)
    check_output(request.output)
    check_only_learnt(request)
    request.check_observer()
    with Corpus.open([*request.inputs, *request.only_learnt], request.corpus_options) as corpus:
        total = corpus.count_rows()  # finds every bad label before anything slow
        files = resolve(request.backbone, progress=say)
        backbone = Backbone.load(files, device=request.device)
        layers = layers_read(request, backbone)
        extractor = load_extractor(backbone, max_length=request.max_length, layers=layers, observer=request.observer)
        codec = codec_named(request.codec, files.weights_id, extractor.fingerprint.layers)
        store = FeatureStore(cache_directory(request.cache), extractor.fingerprint, codec)
        facts = DetectorFacts(request.called, backbone_record(extractor, codec), corpora_record(corpus))
        settings = _settings(request, make, facts) | features_record(extractor, store)
        with tracker.run("train", facts.name, settings) as run:
            record_inputs(run, [*request.inputs, *request.only_learnt], "training", request.input_format)
            data, extraction = load_training_data(corpus, extractor, store, total, rows_line)
            say_texts(say, len(data.documents), extraction.failed, data.repeated, data.conflicting)
            trained = train_detector(
                data,
                make,
                facts,
                seed=request.seed,
                left_out_domains=request.calibration == "left-out-domains",
                progress=progress,
                run=run,
                judged=judged_of(data.documents, request),
            )
            finish(trained, request, run, say)
    return extraction.failed


def _settings(request: TrainingRequest, make: Maker, facts: DetectorFacts) -> dict[str, Any]:
    """The resolved configuration: what was asked for, and the whole recipe behind the detector's name."""
    asked = asdict(request)
    own = asked.pop("settings")
    return asked | {"recipe": own | recipe_record(make, facts)}


def recipe_record(make: Maker, facts: DetectorFacts) -> dict[str, Any]:
    """The whole recipe of a maker; empty where its detectors have none."""
    return recipe_of(make(DetectorCard(name=facts.name, backbone=facts.backbone)))


def layers_read(request: TrainingRequest, backbone: Backbone) -> Sequence[int]:
    """The layers whose hidden states a detector is to learn from; none for the last alone."""
    if request.layers or not request.reads(LAYERS):
        return request.layers
    return spread_layers(backbone)
