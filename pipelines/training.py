"""Labelled files -> a trained, calibrated detector in a folder."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cache.codec import Codec
from cache.codec_catalog import codec_named
from cache.loader import CachedCorpus, LabelledCorpus
from cache.projection import BASIS_FILE, Projection
from cache.store import FeatureStore
from detect.calibration import Calibration
from detect.pawn import DetectorCard, PawnDetector
from detect.pawn_scoring import Precision, corpus_scores
from detect.splits import split_groups
from detect.training import Progress, TrainingConfig, fit_pawn, new_network
from features.backbone import Backbone, native_dtype
from features.documents import Document, Status, text_key
from features.errors import InputError, UsageError
from features.extractor import Extractor
from features.registry import resolve
from pipelines.corpora import Corpus, CorpusOptions
from pipelines.evaluation import figures
from pipelines.extraction import ExtractionSummary, extract_corpus
from pipelines.options import cache_directory
from pipelines.parts import disk_errors

SPLIT = {"train": 0.7, "validation": 0.1, "calibration": 0.1, "test": 0.1}
"""Shares of the sources of a corpus: learnt from, early stopping, human scores for p-values, reported figures."""


RowsProgress = Callable[[int, int, int], None]
"""Called with rows done, rows in all and tokens computed."""


@dataclass(frozen=True)
class TrainingData:
    """Labelled documents whose features are in a store, each text once.

    `conflicting` texts came with both labels and are left out; `repeated` rows had the text of an earlier row.
    """

    corpus: CachedCorpus
    documents: list[Document]
    repeated: int
    conflicting: int

    @property
    def labels(self) -> np.ndarray:
        """(n,) of 0 human and 1 machine."""
        return np.array([document.label for document in self.documents])

    def part(self, indices: Sequence[int] | np.ndarray) -> LabelledCorpus:
        """Some of the documents with their labels."""
        chosen = [int(index) for index in indices]
        return LabelledCorpus(self.corpus.subset(chosen), self.labels[chosen])


def load_training_data(
    data: Corpus,
    extractor: Extractor,
    store: FeatureStore,
    total: int,
    progress: RowsProgress = lambda rows, total, tokens: None,
) -> tuple[TrainingData, ExtractionSummary]:
    """Extract what is missing, then pair the cached features with the labels.

    Raises:
        InputError: when no row can be used.
    """
    summary = extract_corpus(data.rows(), extractor, store, lambda rows, tokens: progress(rows, total, tokens))
    by_key: dict[str, Document] = {}
    conflicting: set[str] = set()
    repeated = 0
    for row in data.rows():
        key = text_key(row.document.text) if row.status is Status.OK else ""
        if key not in store:
            continue  # counted by its status in the summary
        repeated += key in by_key
        if by_key.setdefault(key, row.document).label != row.document.label:
            conflicting.add(key)
    for key in conflicting:
        del by_key[key]
    if not by_key:
        raise InputError(f"none of the {summary.rows} rows can be trained on: {dict(summary.by_status)}")
    corpus = CachedCorpus(store, list(by_key))
    return TrainingData(corpus, list(by_key.values()), repeated, len(conflicting)), summary


@dataclass(frozen=True)
class DetectorFacts:
    """What a trained detector remembers: its name, its language model, the files it was trained on."""

    name: str
    backbone: dict[str, Any]  # `backbone_record`
    corpora: list[dict[str, Any]]  # `corpora_record`


@dataclass(frozen=True)
class TrainedDetector:
    """A detector with its calibration and what is known of it."""

    detector: PawnDetector
    calibration: Calibration
    codec: Codec

    def save(self, directory: Path) -> None:
        """Write everything that `pawn score --detector DIR` needs.

        Raises:
            PawnError: when the disk refuses.
        """
        with disk_errors(directory, "then train again: the features are kept in the cache"):
            self.detector.save(directory)
            self.calibration.save(directory)
            if isinstance(self.codec, Projection):
                self.codec.save(directory / BASIS_FILE)


def train_pawn(
    data: TrainingData,
    config: TrainingConfig,
    facts: DetectorFacts,
    *,
    left_out_domains: bool = False,
    progress: Progress = lambda event, values: None,
) -> TrainedDetector:
    """Split, train, calibrate on human texts held out, measure on others.

    Args:
        data: labelled documents.
        config: the recipe.
        facts: for the record.
        left_out_domains: calibrate on what networks trained without a domain give its human texts, domain by
            domain, rather than on held-out texts of the domains trained on. Costs one more training a domain, and
            gives thresholds that unseen domains can be expected to keep.
        progress: told of steps and epochs.

    Raises:
        InputError: when a part of the split lacks a class, or there are too few domains to leave one out.
    """
    parts = np.array(split_groups(data.documents, SPLIT, config.seed))
    chosen = {part: np.flatnonzero(parts == part) for part in SPLIT}
    _check_parts(data.labels, chosen)
    record: dict[str, Any] = {
        "corpora": facts.corpora,
        "texts": {part: len(members) for part, members in chosen.items()},
    }
    network = new_network(config, hidden_size=facts.backbone["hidden_size"])
    detector = PawnDetector(network, DetectorCard(name=facts.name, backbone=facts.backbone, training=record))
    detector.fit(data.part(chosen["train"]), data.part(chosen["validation"]), config, progress)
    human = chosen["calibration"][data.labels[chosen["calibration"]] == 0]
    scores = corpus_scores(network, data.corpus.subset(human.tolist()))
    texts = "human texts of the calibration part of the split"
    if left_out_domains:
        scores, rows = _left_out(data, config, chosen, facts.backbone["hidden_size"], progress)
        detector.card.training["left_out_domains"] = rows
        texts = "all human texts, each scored by a network trained by the same recipe without the text's domain"
    test = data.part(chosen["test"])
    test_scores = corpus_scores(network, test.corpus)
    detector.card.training["test"] = figures(test.labels, test_scores, Calibration(scores, {}))
    provenance = {
        "detector": facts.name,
        "weights_sha256": detector.weights_sha256(),
        "corpora": facts.corpora,
        "texts": texts,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return TrainedDetector(detector, Calibration(scores, provenance), data.corpus.codec)


def _left_out(
    data: TrainingData,
    config: TrainingConfig,
    chosen: dict[str, np.ndarray],
    hidden_size: int,
    progress: Progress,
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Scores of human texts by networks that never saw their domain, and the figures of each domain.

    Its thresholds are those that the human scores of the other domains give: what a user of an unseen domain gets.
    """
    domains = np.array([str(document.domain) for document in data.documents])
    names = sorted(set(domains))
    if len(names) < 3:
        raise InputError(
            f"calibrating on left-out domains needs at least 3 domains in a column 'domain', got {names}; "
            "leave --calibration at held-out"
        )
    scores: dict[str, np.ndarray] = {}
    labels: dict[str, np.ndarray] = {}
    for name in names:
        seen = {part: members[domains[members] != name] for part, members in chosen.items()}
        _check_parts(data.labels, seen)
        network = new_network(config, hidden_size=hidden_size)
        fit_pawn(network, data.part(seen["train"]), data.part(seen["validation"]), config, progress)
        test = np.flatnonzero(domains == name)
        scores[name] = corpus_scores(network, data.corpus.subset(test.tolist()))
        labels[name] = data.labels[test]
    human = {name: scores[name][labels[name] == 0] for name in names}
    rows: list[dict[str, Any]] = []
    for name in names:
        others = Calibration(np.concatenate([human[other] for other in names if other != name]), {})
        rows.append({"held_out": name} | figures(labels[name], scores[name], others))
    return np.concatenate(list(human.values())), rows


@dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    """What `pawn train pawn` was asked for: its options by name."""

    inputs: Sequence[str]
    output: Path
    label_column: str
    text_column: str
    id_column: str | None
    input_format: str | None
    cache: str | None
    codec: str
    backbone: str
    name: str | None
    epochs: int
    learning_rate: float
    batch_size: int
    crop_probability: float
    likelihood_weight: float
    seed: int
    calibration: str
    max_length: int
    device: str | None

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
    def config(self) -> TrainingConfig:
        """The recipe.

        Raises:
            UsageError: when a setting cannot be.
        """
        try:
            return TrainingConfig(
                epochs=self.epochs,
                learning_rate=self.learning_rate,
                batch_size=self.batch_size,
                crop_probability=self.crop_probability,
                likelihood_weight=self.likelihood_weight,
                seed=self.seed,
                precision=training_precision(),
            )
        except ValueError as error:
            raise UsageError(str(error)) from error


def run_training(
    request: TrainingRequest,
    *,
    say: Callable[[str], None],
    rows_line: RowsProgress = lambda rows, total, tokens: None,
    progress: Progress = lambda event, values: None,
) -> int:
    """Extract, train, calibrate, save; returns how many rows could not be used.

    Args:
        request: what to do.
        say: told what a person should know.
        rows_line: told of extraction.
        progress: told of training.

    Raises:
        PawnError: for everything that can be wrong with data, backbone or output.
    """
    config = request.config
    _check_output(request.output)
    with Corpus.open(request.inputs, request.corpus_options) as corpus:
        total = corpus.count_rows()  # finds every bad label before anything slow
        files = resolve(request.backbone, progress=say)
        extractor = Extractor(Backbone.load(files, device=request.device), max_length=request.max_length)
        codec = codec_named(request.codec, files.weights_id)
        store = FeatureStore(cache_directory(request.cache), extractor.fingerprint, codec)
        data, extraction = load_training_data(corpus, extractor, store, total, rows_line)
        say(
            f"{len(data.documents):,} texts to train on; {extraction.failed:,} rows cannot be used, {data.repeated:,} "
            f"repeat an earlier text, {data.conflicting:,} texts have both labels and are left out"
        )
        trained = train_pawn(
            data,
            config,
            DetectorFacts(
                request.name or request.output.resolve().name, backbone_record(extractor, codec), corpora_record(corpus)
            ),
            left_out_domains=request.calibration == "left-out-domains",
            progress=progress,
        )
    trained.save(request.output)
    test = "  ".join(f"{name} {value:.4g}" for name, value in trained.detector.card.training["test"].items())
    say(f"Test part: {test}\nSaved to {request.output}; score with --detector {request.output}")
    return extraction.failed


def _check_output(directory: Path) -> None:
    """Refuse a folder that could only fail once the training is done."""
    path = directory.absolute()
    nearest = next(folder for folder in (path, *path.parents) if folder.exists())
    if not nearest.is_dir():
        raise UsageError(f"cannot write a detector to {directory}: {nearest} is a file; choose another folder with -o")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UsageError(
            f"cannot write a detector to {directory}: no right to write in {nearest}; choose another folder with -o"
        )


def training_precision() -> Precision:
    """bfloat16 products where the processor has them: twice as fast, and no AUROC lost that we could measure."""
    return "bfloat16" if native_dtype("cpu") is torch.bfloat16 else "float32"


def corpora_record(data: Corpus) -> list[dict[str, Any]]:
    """Name and SHA-256 of each training file."""
    return [{"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()} for path in data.files]


def backbone_record(extractor: Extractor, codec: Codec) -> dict[str, Any]:
    """What a detector keeps of the language model that it was trained on."""
    name = extractor.backbone.name
    local = Path(name).expanduser()
    return {
        # A path is kept whole: the detector is used from other working directories.
        "name": str(local.resolve()) if local.exists() else name,
        "hidden_size": extractor.backbone.hidden_size,
        "codec": codec.name,
        "fingerprint": extractor.fingerprint.to_dict(),
    }


def _check_parts(labels: np.ndarray, chosen: dict[str, np.ndarray]) -> None:
    for part, members in chosen.items():
        human, machine = int((labels[members] == 0).sum()), int((labels[members] == 1).sum())
        if not human or not machine:
            raise InputError(
                f"the {part} part of the data ({SPLIT[part]:.0%} of its sources) has {human} human and {machine} "
                "machine texts; at least one of each is needed: give more texts, or more sources of them"
            )
