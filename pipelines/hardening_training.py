"""The detectors of a hardening: each is trained once and kept, and a repeated command does not train it again."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from detect.catalog import load_detector
from detect.trained import Progress, TrainableDetector, TrainableTextDetector
from pipelines.cells import KEPT, cell_name, digest_of
from pipelines.fitting import TrainedDetector, fit_calibrated, training_record
from pipelines.hardening_learner import HardenedLearner, Workshop
from pipelines.options import cache_directory
from pipelines.parts import disk_errors, publish
from pipelines.provenance import plain
from pipelines.scorers import AnyScorer, LanguageModels, scorer_of
from pipelines.scoring import ScoringSettings
from pipelines.tracking import Run
from pipelines.training import TrainingRequest


@dataclass(frozen=True)
class Trainer:
    """Trains detectors of one recipe, and keeps each in a folder whose name tells all that decides what it is.

    Attributes:
        request: the recipe, and how detectors score.
        folder: of the kept detectors.
        workshop: what they learn from.
        models: the language models.
        say: told what a person should know.
        progress: told of trainings.
    """

    request: TrainingRequest
    folder: Path
    workshop: Workshop
    models: LanguageModels
    say: Callable[[str], None]
    progress: Progress

    def train(
        self, name: str, learner: HardenedLearner[Any], record: Mapping[str, Any], run: Run
    ) -> tuple[TrainedDetector, AnyScorer]:
        """A trained detector, and what scores by it; the one that is kept where the same was trained before.

        Args:
            name: for people.
            learner: of `workshop`.
            record: what the detector is to remember under "hardening", JSON-able.
            run: gets the course of a training, and the figures.

        Raises:
            InputError: as `fit_calibrated`.
            DetectorError: when a kept detector is damaged.
            PawnError: when the disk refuses.
        """
        kept = self.folder / cell_name(name, self.request.seed, self._identity(learner, record))
        if kept.is_dir():
            self.say(f"Training {name} is done already: {kept}")
        else:
            shown = len(learner.documents) - len(learner.not_shown)
            self.say(f"Training {name}: {shown:,} texts, {len(learner.origins):,} attacked versions of them")
            self._fit(learner, record, run, kept)
        found = load_detector(str(kept), device=self.request.device, say=self.say)
        detector, calibration = found.detector, found.calibration
        assert isinstance(detector, TrainableDetector | TrainableTextDetector)  # as every kind in a folder is
        assert calibration is not None  # a kept folder is whole
        run.metrics(training_record(detector)["test"])
        settings = ScoringSettings(
            backbone=self.request.backbone,
            max_length=self.request.max_length,
            cache=cache_directory(self.request.cache),
            device=self.request.device,
            normalise=False,  # the defence is a column of its own
        )
        scorer = scorer_of(found, settings, self.models, self.request.observer)
        return TrainedDetector(detector, calibration, self.workshop.codec), scorer

    def _fit(self, learner: HardenedLearner[Any], record: Mapping[str, Any], run: Run, kept: Path) -> None:
        """Train a detector, and give it its folder once it is whole."""
        detector = learner.new()
        calibration = fit_calibrated(
            learner,
            detector,
            self.workshop.facts,
            seed=self.request.seed,
            left_out_domains=self.request.calibration == "left-out-domains",
            progress=self.progress,
            run=run,
        )
        training_record(detector)["hardening"] = dict(record)
        temporary = kept.with_name(f".{kept.name}.tmp")
        with disk_errors(kept, KEPT):
            shutil.rmtree(temporary, ignore_errors=True)  # of a run that was stopped while it saved
            TrainedDetector(detector, calibration, self.workshop.codec).save(temporary)
            publish(temporary, kept)

    def _identity(self, learner: HardenedLearner[Any], record: Mapping[str, Any]) -> dict[str, Any]:
        """All that decides what a learner's detector is and remembers, JSON-able."""
        found: dict[str, Any] = plain(
            {
                "detector": self.request.detector,
                "settings": self.request.settings,
                "recipe": self.workshop.recipe_record,
                "calibration": self.request.calibration,
                "facts": self.workshop.facts,
                "hardening": record,
                "texts": digest_of([digest_of(asdict(document)) for document in learner.base.documents], 64),
                "origins": digest_of(learner.origins.tolist(), 64),
                "not_shown": digest_of(sorted(learner.not_shown), 64),
                "version": version("pawn-detect"),
            }
        )
        return found
