"""Labelled files -> a trained, calibrated detector of texts in a folder: no language model of the feature stage."""

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from detect.finetuning import Checkpointing
from detect.protocol import LabelledTexts
from detect.text_reading import readings
from detect.text_recipes import TextRecipe, text_recipe
from detect.trained import Progress, TrainableTextDetector, silent
from features.documents import Document, Status, text_key
from features.errors import InputError
from pipelines.corpora import Corpus, Row
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
from pipelines.parts import disk_errors
from pipelines.tracked_data import record_inputs
from pipelines.tracking import UNTRACKED, Tracker
from pipelines.training_data import RowsProgress, corpora_record, distinct_texts

READ_ROWS = 256
"""Rows whose length is judged together."""


@dataclass(frozen=True)
class TextData:
    """Labelled documents that a detector can learn from, each text once.

    `conflicting` texts came with both labels and are left out; `repeated` rows had the text of an earlier row; `failed`
    rows could not be used.
    """

    documents: list[Document]
    repeated: int
    conflicting: int
    failed: int


def load_texts(
    corpus: Corpus,
    detector: TrainableTextDetector,
    total: int,
    progress: RowsProgress = lambda rows, total, tokens: None,
) -> TextData:
    """The documents of labelled files that a detector can score, and so learn from.

    Raises:
        InputError: when no row can be used.
    """
    by_status: Counter[Status] = Counter()

    def usable() -> Iterator[tuple[str, Document]]:
        tokens, left = 0, iter(corpus.rows())
        while rows := list(islice(left, READ_ROWS)):
            for row, status, n_tokens in _judged(rows, detector):
                by_status[status] += 1
                tokens += n_tokens
                if status is Status.OK:
                    yield text_key(row.document.text), row.document
            progress(by_status.total(), total, tokens)

    by_key, repeated, conflicting = distinct_texts(usable())
    if not by_key:
        counts = {str(status): count for status, count in by_status.items()}
        raise InputError(f"none of the {by_status.total()} rows can be trained on: {counts}")
    failed = by_status.total() - by_status[Status.OK]
    return TextData(list(by_key.values()), repeated, conflicting, failed)


def _judged(rows: Sequence[Row], detector: TrainableTextDetector) -> Iterator[tuple[Row, Status, int]]:
    """Each row with its status, the length of its text looked at, and the tokens read of it."""
    read = iter(readings(detector, [row.document.text for row in rows if row.status is Status.OK]))
    for row in rows:
        if row.status is not Status.OK:
            yield row, row.status, 0
            continue
        reading = next(read)
        yield row, Status.TOO_SHORT if reading.too_short else Status.OK, reading.n_tokens or 0


@dataclass(frozen=True)
class TextLearner:
    """Detectors of a recipe on texts; a `fitting.Learner`.

    Attributes:
        documents: each text once.
        recipe: of every detector.
        name: what a person calls it.
        checkpoints: folder for a checkpoint of each training.
        say: told of slow steps.
    """

    documents: Sequence[Document]
    recipe: TextRecipe
    name: str
    checkpoints: Path
    say: Callable[[str], None]

    @property
    def labels(self) -> np.ndarray:
        """(n,) of 0 human and 1 machine."""
        return np.array([document.label for document in self.documents])

    def new(self) -> TrainableTextDetector:
        """An unfitted detector."""
        return self.recipe.new(self.name, self.say)

    def fit(
        self, detector: TrainableTextDetector, parts: Mapping[str, np.ndarray], progress: Progress, held_out: str | None
    ) -> None:
        """Train an unfitted detector in place, from its checkpoint on where there is one."""
        path = self.checkpoints / _checkpoint_name(held_out)
        if path.is_file():
            self.say(f"Continuing the training that is kept in {path}")
        with disk_errors(path, "then repeat the command: the training goes on from its last checkpoint"):
            self.recipe.fit(
                detector,
                self._part(parts["train"]),
                self._part(parts["validation"]),
                progress=progress,
                checkpointing=Checkpointing(path),
            )

    def band_scores(self, detector: TrainableTextDetector, indices: np.ndarray) -> BandScores:
        """A trained detector's scores of some documents, whole: it may have no tokens to cut at."""
        return BandScores(np.arange(len(indices)), detector.score([self.documents[index].text for index in indices]))

    def _part(self, indices: np.ndarray) -> LabelledTexts:
        return LabelledTexts([self.documents[index].text for index in indices], self.labels[indices])


def checkpoint_folder(output: Path) -> Path:
    """Where trainings are kept until their detector is saved: beside its folder."""
    path = output.resolve()
    return path.with_name(f".{path.name}.training")


def _checkpoint_name(held_out: str | None) -> str:
    """File name of a training; a domain's name comes from data, so it is hashed."""
    if held_out is None:
        return "detector.safetensors"
    return f"without-{hashlib.sha256(held_out.encode()).hexdigest()[:16]}.safetensors"


def run_text_training(
    request: LabelledRequest,
    *,
    say: Callable[[str], None],
    rows_line: RowsProgress = lambda rows, total, tokens: None,
    progress: Progress = silent,
    tracker: Tracker = UNTRACKED,
) -> int:
    """Read, train, calibrate, save, and record it as a run; returns how many rows could not be used.

    A training that was stopped is continued by the same call.

    Args:
        request: what to do; `settings` as `detect.text_recipes.text_recipe` has them.
        say: told what a person should know.
        rows_line: told of reading.
        progress: told of training.
        tracker: makes the run, which gets the detector once it is saved.

    Raises:
        PawnError: for everything that can be wrong with data, base model or output.
    """
    recipe = text_recipe(request.detector, seed=request.seed, **request.settings)
    check_output(request.output)
    check_only_learnt(request)
    with Corpus.open([*request.inputs, *request.only_learnt], request.corpus_options) as corpus:
        total = corpus.count_rows()  # finds every bad label before anything slow
        facts = DetectorFacts(request.called, {}, corpora_record(corpus))
        detector = recipe.new(facts.name, say)
        asked = asdict(replace(request, settings={})) | {"recipe": asdict(recipe)}
        with tracker.run("train", facts.name, asked) as run:
            record_inputs(run, [*request.inputs, *request.only_learnt], "training", request.input_format)
            data = load_texts(corpus, detector, total, rows_line)
            say_texts(say, len(data.documents), data.failed, data.repeated, data.conflicting)
            checkpoints = checkpoint_folder(request.output)
            learner = TextLearner(data.documents, recipe, facts.name, checkpoints, say)
            calibration = fit_calibrated(
                learner,
                detector,
                facts,
                seed=request.seed,
                left_out_domains=request.calibration == "left-out-domains",
                progress=progress,
                run=run,
                judged=judged_of(data.documents, request),
            )
            finish(TrainedDetector(detector, calibration), request, run, say)
            shutil.rmtree(checkpoints, ignore_errors=True)  # only now: the detector is whole on disk
    return data.failed
