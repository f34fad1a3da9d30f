"""What every training is, whatever the detector reads: split, fit, calibrate on human texts held out, measure."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from cache.codec import Codec
from cache.projection import BASIS_FILE, Projection
from detect.calibration import PROVENANCE_FILE, Calibration
from detect.protocol import CARD_FILE, reads_text
from detect.splits import split_groups, versions
from detect.trained import Progress, TrainableDetector, TrainableTextDetector
from features.documents import Document
from features.errors import InputError, UsageError
from pipelines.corpora import CorpusOptions
from pipelines.parts import disk_errors
from pipelines.tracked_models import EXAMPLE_TEXT
from pipelines.tracking import Run
from pipelines.training_data import held_in
from pipelines.training_figures import FPRS, TRADE_FPRS, figures

SPLIT = {"train": 0.7, "validation": 0.1, "calibration": 0.1, "test": 0.1}
"""Shares of the sources of a corpus: learnt from, early stopping, human scores for p-values, reported figures."""

LEARNT = ("train", "validation")
"""The parts of it that a training sees."""

Trainable = TrainableDetector | TrainableTextDetector
D = TypeVar("D", bound=Trainable)


@dataclass(frozen=True, kw_only=True)
class LabelledRequest:
    """What `pawn train NAME` was asked for, whatever the detector reads: its options by name.

    `settings` are those of the detector's own recipe; texts of the files `only_learnt` neither judge nor calibrate.
    """

    detector: str
    inputs: Sequence[str]
    only_learnt: Sequence[str] = ()
    output: Path
    label_column: str
    text_column: str
    id_column: str | None
    input_format: str | None
    name: str | None
    seed: int
    calibration: str
    register_as: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def corpus_options(self) -> CorpusOptions:
        """How to read the texts."""
        return CorpusOptions(
            text_column=self.text_column,
            id_column=self.id_column,
            labelled=True,
            label_column=self.label_column,
            input_format=self.input_format,
        )

    @property
    def called(self) -> str:
        """The name of the detector: the one asked for, or that of its folder."""
        return self.name or self.output.resolve().name


class Learner(Protocol[D]):
    """Labelled documents, and how a kind of detector learns from some and scores others."""

    @property
    def documents(self) -> Sequence[Document]:
        """All of them, each text once."""
        ...

    @property
    def labels(self) -> np.ndarray:
        """(n,) of 0 human and 1 machine."""
        ...

    def new(self) -> D:
        """An unfitted detector."""
        ...

    def fit(self, detector: D, parts: Mapping[str, np.ndarray], progress: Progress, held_out: str | None) -> None:
        """Train an unfitted detector in place.

        Args:
            detector: what `new` gave.
            parts: indices of the documents of parts "train" and "validation".
            progress: told of steps and epochs.
            held_out: the domain that these lack; None for the detector that is kept.
        """
        ...

    def band_scores(self, detector: D, indices: np.ndarray) -> "BandScores":
        """A trained detector's scores of some documents at every length that they reach; see `BandScores`."""
        ...


@dataclass(frozen=True)
class BandScores:
    """Scores of documents, each at every length that `detect.trained.band_scores` chooses: all (rows,)."""

    places: np.ndarray  # in what was given
    scores: np.ndarray
    n_tokens: np.ndarray | None = None  # None where the detector knows no tokens: one row a document, its whole text


@dataclass(frozen=True)
class DetectorFacts:
    """What a trained detector remembers: its name, its language model, the files it was trained on."""

    name: str
    backbone: dict[str, Any]  # `backbone_record`; empty where it has none
    corpora: list[dict[str, Any]]  # `corpora_record`


@dataclass(frozen=True)
class TrainedDetector:
    """A detector with its calibration, and the form of the hidden states that it was trained on, if it reads any."""

    detector: Trainable
    calibration: Calibration
    codec: Codec | None = None

    def save(self, directory: Path) -> None:
        """Write everything that `pawn score --detector DIR` needs.

        Raises:
            PawnError: when the disk refuses.
        """
        with disk_errors(directory, "then repeat the command: what it computed of the texts is kept"):
            (directory / PROVENANCE_FILE).unlink(missing_ok=True)  # of other weights: none is better than a wrong one
            self.detector.save(directory)
            self.calibration.save(directory)
            if isinstance(self.codec, Projection):
                self.codec.save(directory / BASIS_FILE)


def training_record(detector: Trainable) -> dict[str, Any]:
    """What a detector's card says of its training; changes are saved with it."""
    return detector.training if reads_text(detector) else detector.card.training


def fit_calibrated(
    learner: Learner[D],
    detector: D,
    facts: DetectorFacts,
    *,
    seed: int,
    left_out_domains: bool,
    progress: Progress,
    run: Run,
    judged: np.ndarray | None = None,
) -> Calibration:
    """Split, train, calibrate on human texts held out, measure on others; the detector's record says all of it.

    Args:
        learner: documents, and what to do with them.
        detector: unfitted; it is trained in place.
        facts: for the record.
        seed: of the split by sources.
        left_out_domains: calibrate on what detectors trained without a domain give its human texts, domain by
            domain, rather than on held-out texts of the domains trained on. Costs one more training a domain, and
            gives thresholds that unseen domains can be expected to keep.
        progress: told of steps and epochs.
        run: keeps the course of the training and the figures; of left-out domains in a child run each.
        judged: (n,) whether a document may calibrate and measure; the others are split like all, so that nothing is
            learnt of a source that is judged. None: every one.

    Raises:
        InputError: when a part of the split lacks a class, or there are too few domains to leave one out.
    """
    parts = np.array(split_groups(learner.documents, SPLIT, seed))
    judged = np.ones(len(parts), dtype=bool) if judged is None else judged
    chosen = {part: np.flatnonzero((parts == part) & (judged | (part in LEARNT))) for part in SPLIT}
    _check_parts(learner.labels, chosen)
    if left_out_domains:
        _check_domains(learner.documents, learner.labels, judged)
    learner.fit(detector, chosen, recorded(progress, run), None)
    record = training_record(detector)
    record |= {"corpora": facts.corpora, "texts": {part: len(members) for part, members in chosen.items()}}
    record |= {} if judged.all() else {"only_learnt": int((~judged & np.isin(parts, LEARNT)).sum())}
    provenance = {
        "detector": facts.name,
        "weights_sha256": detector.weights_sha256(),
        "corpora": facts.corpora,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if left_out_domains:
        calibration, record["left_out_domains"] = _left_out(learner, chosen, judged, progress, run)
        texts = "all human texts, each scored by a detector trained by the same recipe without the text's domain"
    else:
        calibration = _calibration(learner, detector, chosen["calibration"])
        texts = "human texts of the calibration part of the split"
    test = learner.band_scores(detector, chosen["test"])
    record["test"] = _whole_figures(learner.labels[chosen["test"]], test, calibration)
    run.metrics(record["test"])
    return replace(calibration, provenance=provenance | {"texts": texts})


def _calibration(learner: Learner[D], detector: D, indices: np.ndarray) -> Calibration:
    """What a detector gives the human texts among some documents."""
    found = learner.band_scores(detector, indices[learner.labels[indices] == 0])
    return Calibration(found.scores, {}, None, found.n_tokens)


def _whole_figures(
    labels: np.ndarray, found: BandScores, calibration: Calibration, fprs: Sequence[float] = FPRS
) -> dict[str, float]:
    """`figures` of documents (n,) judged whole."""
    last = len(found.places) - 1 - np.unique(found.places[::-1], return_index=True)[1]  # a document's longest row
    n_tokens = None if found.n_tokens is None else found.n_tokens[last]
    return figures(labels, found.scores[last], calibration, n_tokens, fprs)


def _left_out(
    learner: Learner[D], chosen: dict[str, np.ndarray], judged: np.ndarray, progress: Progress, run: Run
) -> tuple[Calibration, list[dict[str, Any]]]:
    """Scores of human texts by detectors that never saw their domain, and the figures of each domain.

    Only documents that are `judged` (n,) are scored. A domain's thresholds are those that the human scores of the other
    domains give, with the caution of the calibration, which is that of all domains: the rule that a user of an unseen
    domain gets. Chosen by the domain itself too, the caution flatters a little.
    """
    domains = np.array([str(document.domain) for document in learner.documents])
    version = np.array(versions(learner.documents))
    names = sorted(set(domains[judged]))
    found: dict[str, BandScores] = {}
    labels: dict[str, np.ndarray] = {}
    folds: dict[str, Run] = {}
    for name in names:
        known = np.isin(version, version[domains == name])  # versions of its texts in other domains too
        known |= ~judged & ~np.isin(domains, names)  # texts of no such domain may be made of any
        seen = {part: members[~known[members]] for part, members in chosen.items()}
        _check_parts(learner.labels, seen)
        with run.child(f"without {name}", {"held_out": name}) as folds[name]:
            detector = learner.new()
            learner.fit(detector, seen, recorded(progress, folds[name]), name)
            test = np.flatnonzero((domains == name) & judged)
            found[name] = learner.band_scores(detector, test)
        labels[name] = learner.labels[test]
    human = {name: _humans(name, labels[name], found[name]) for name in names}
    calibration = _together(list(human.values()))
    rows: list[dict[str, Any]] = []
    for name in names:
        others = _together([human[other] for other in names if other != name], calibration.caution)
        figured = _whole_figures(labels[name], found[name], others, TRADE_FPRS)
        folds[name].metrics(figured)  # only now: thresholds come from the scores of the other folds
        rows.append({"held_out": name} | figured)
    return calibration, rows


def _check_domains(documents: Sequence[Document], labels: np.ndarray, judged: np.ndarray) -> None:
    """Refuse domains that cannot be left out and judged, before anything slow."""
    domains = np.array([str(document.domain) for document in documents])
    names = sorted(set(domains[judged]))
    if len(names) < 3:
        raise InputError(
            f"calibrating on left-out domains needs at least 3 domains in a column 'domain', got {names}; "
            "leave --calibration at held-out"
        )
    for name in names:
        if len(np.unique(labels[(domains == name) & judged])) < 2:
            raise InputError(
                f"domain {name!r} has texts of one class only and cannot be judged when it is left out; give its texts "
                "another domain, or leave --calibration at held-out"
            )


def _humans(domain: str, labels: np.ndarray, found: BandScores) -> Calibration:
    """The human scores of a domain."""
    chosen = labels[found.places] == 0
    n_tokens = None if found.n_tokens is None else found.n_tokens[chosen]
    return Calibration(found.scores[chosen], {}, np.full(int(chosen.sum()), domain), n_tokens)


def _together(domains: Sequence[Calibration], caution: int = 0) -> Calibration:
    """The scores of several domains as one calibration that knows them apart, and its `caution`."""
    lengths = [domain.n_tokens for domain in domains if domain.n_tokens is not None]
    names = [domain.domains for domain in domains if domain.domains is not None]
    scores = np.concatenate([domain.scores for domain in domains])
    return Calibration(scores, {}, np.concatenate(names), np.concatenate(lengths) if lengths else None, caution)


def recorded(progress: Progress, run: Run) -> Progress:
    """A progress that also keeps what epochs, rounds and ends give as metrics of a run, by step."""

    def told(event: str, values: Mapping[str, float]) -> None:
        progress(event, values)
        if event in ("epoch", "round", "fitted"):
            step = values.get("epoch", values.get("round"))
            names = [name for name in ("loss", "validation_auroc") if name in values]
            run.metrics({name: values[name] for name in names}, None if step is None else int(step))

    return told


def check_only_learnt(request: LabelledRequest) -> None:
    """Refuse what could only fail once everything is extracted.

    Raises:
        UsageError: when texts that judge come from standard input, which can be read once, beside others that do not.
    """
    if request.only_learnt and "-" in request.inputs:
        raise UsageError("--only-learnt goes with files in --data, got -: save the texts of standard input to a file")


def judged_of(documents: Sequence[Document], request: LabelledRequest) -> np.ndarray | None:
    """Which documents may calibrate and measure, (n,) bool: those of `inputs`; None where there are no others."""
    return held_in(documents, request.inputs, request.corpus_options) if request.only_learnt else None


def finish(trained: TrainedDetector, request: LabelledRequest, run: Run, say: Callable[[str], None]) -> None:
    """Save a trained detector, say how good it is, and give it to the run."""
    trained.save(request.output)
    test = "  ".join(f"{name} {value:.4g}" for name, value in training_record(trained.detector)["test"].items())
    say(f"Test part: {test}\nSaved to {request.output}; score with --detector {request.output}")
    run.file(request.output / CARD_FILE)
    run.detector(request.output, EXAMPLE_TEXT, register_as=request.register_as)


def say_texts(say: Callable[[str], None], texts: int, failed: int, repeated: int, conflicting: int) -> None:
    """How many texts there are to learn from, and what became of the other rows."""
    say(
        f"{texts:,} texts to train on; {failed:,} rows cannot be used, {repeated:,} repeat an earlier text, "
        f"{conflicting:,} texts have both labels and are left out"
    )


def check_output(directory: Path) -> None:
    """Refuse a folder that could only fail once the training is done.

    Raises:
        UsageError: when it is a file or lies where nothing can be written.
    """
    path = directory.absolute()
    nearest = next(folder for folder in (path, *path.parents) if folder.exists())
    if not nearest.is_dir():
        raise UsageError(f"cannot write to folder {directory}: {nearest} is a file; choose another folder with -o")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UsageError(
            f"cannot write to folder {directory}: no right to write in {nearest}; choose another folder with -o"
        )


def _check_parts(labels: np.ndarray, chosen: Mapping[str, np.ndarray]) -> None:
    for part, members in chosen.items():
        human, machine = int((labels[members] == 0).sum()), int((labels[members] == 1).sum())
        if not human or not machine:
            raise InputError(
                f"the {part} part of the data ({SPLIT[part]:.0%} of its sources) has {human} human and {machine} "
                "machine texts; at least one of each is needed: give more texts, or more sources of them"
            )
