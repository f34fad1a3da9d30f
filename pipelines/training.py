"""Labelled files -> a trained, calibrated detector in a folder."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cache.loader import CachedCorpus, LabelledCorpus
from cache.store import FeatureStore
from detect.calibration import Calibration
from detect.measures import auroc, tpr_at_fpr
from detect.pawn import DetectorCard, PawnDetector
from detect.pawn_scoring import Precision, corpus_scores
from detect.splits import split_groups
from detect.training import Progress, TrainingConfig, new_network
from features.backbone import native_dtype
from features.documents import Document, Status, text_key
from features.errors import InputError
from features.extractor import Extractor
from pipelines.corpora import Corpus
from pipelines.extraction import ExtractionSummary, extract_corpus

SPLIT = {"train": 0.7, "validation": 0.1, "calibration": 0.1, "test": 0.1}
"""Shares of the sources of a corpus: learnt from, early stopping, human scores for p-values, reported figures."""


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
    progress: Callable[[int, int], None] = lambda rows, tokens: None,
) -> tuple[TrainingData, ExtractionSummary]:
    """Extract what is missing, then pair the cached features with the labels.

    Raises:
        InputError: when no row can be used.
    """
    summary = extract_corpus(data.rows(), extractor, store, progress)
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
class TrainedDetector:
    """A detector with its calibration and what is known of it."""

    detector: PawnDetector
    calibration: Calibration
    test: dict[str, Any]

    def save(self, directory: Path) -> None:
        """Write everything that `pawn score --detector DIR` needs."""
        self.detector.save(directory)
        self.calibration.save(directory)


def train_pawn(
    data: TrainingData,
    config: TrainingConfig,
    *,
    name: str,
    backbone: dict[str, Any],
    corpora: list[dict[str, Any]],
    progress: Progress = lambda event, values: None,
) -> TrainedDetector:
    """Split, train, calibrate on held-out human texts, measure on others.

    Args:
        data: labelled documents.
        config: the recipe.
        name: what people will call the detector.
        backbone: name and fingerprint of the language model that gave the features.
        corpora: what it was trained on, for the record (`corpora_record`).
        progress: told of steps and epochs.

    Raises:
        InputError: when a part of the split lacks a class.
    """
    parts = np.array(split_groups(data.documents, SPLIT, config.seed))
    chosen = {part: np.flatnonzero(parts == part) for part in SPLIT}
    _check_parts(data.labels, chosen)
    facts = {"corpora": corpora, "texts": {part: len(members) for part, members in chosen.items()}}
    network = new_network(config, hidden_size=backbone["hidden_size"])
    detector = PawnDetector(network, DetectorCard(name=name, backbone=backbone, training=facts))
    detector.fit(data.part(chosen["train"]), data.part(chosen["validation"]), config, progress)
    human = chosen["calibration"][data.labels[chosen["calibration"]] == 0]
    calibration_scores = corpus_scores(network, data.corpus.subset(human.tolist()))
    test = data.part(chosen["test"])
    test_scores = corpus_scores(network, test.corpus)
    figures = {
        "texts": len(test.labels),
        "auroc": auroc(test.labels, test_scores),
        "tpr_at_1%_fpr": tpr_at_fpr(test.labels, test_scores, 0.01),
        "tpr_at_5%_fpr": tpr_at_fpr(test.labels, test_scores, 0.05),
    }
    detector.card.training["test"] = figures
    calibration = Calibration(
        calibration_scores,
        {
            "detector": name,
            "weights_sha256": detector.weights_sha256(),
            "corpora": corpora,
            "texts": "human texts of the calibration part of the split, whole, up to the length limit",
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )
    return TrainedDetector(detector, calibration, figures)


def training_precision() -> Precision:
    """bfloat16 products where the processor has them: twice as fast, and no AUROC lost that we could measure."""
    return "bfloat16" if native_dtype("cpu") is torch.bfloat16 else "float32"


def corpora_record(data: Corpus) -> list[dict[str, Any]]:
    """Name and SHA-256 of each training file."""
    return [{"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()} for path in data.files]


def backbone_record(extractor: Extractor) -> dict[str, Any]:
    """What a detector keeps of the language model that it was trained on."""
    name = extractor.backbone.name
    local = Path(name).expanduser()
    return {
        # A path is kept whole: the detector is used from other working directories.
        "name": str(local.resolve()) if local.exists() else name,
        "hidden_size": extractor.backbone.hidden_size,
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
