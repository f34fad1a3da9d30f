"""Labelled files -> cached features with their labels, and the record of both that a detector keeps."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cache.codec import Codec
from cache.loader import CachedCorpus, LabelledCorpus
from cache.store import FeatureStore
from features.documents import Document, Status, text_key
from features.errors import InputError
from features.extractor import Extractor
from features.registry import lasting_name
from pipelines.corpora import Corpus, CorpusOptions
from pipelines.extraction import ExtractionSummary, extract_corpus

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
    scorable = ((text_key(row.document.text), row.document) for row in data.rows() if row.status is Status.OK)
    # Others are counted by their status in the summary.
    by_key, repeated, conflicting = distinct_texts(member for member in scorable if member[0] in store)
    if not by_key:
        raise InputError(f"none of the {summary.rows} rows can be trained on: {dict(summary.by_status)}")
    corpus = CachedCorpus(store, list(by_key))
    return TrainingData(corpus, list(by_key.values()), repeated, conflicting), summary


def distinct_texts(documents: Iterable[tuple[str, Document]]) -> tuple[dict[str, Document], int, int]:
    """The first document of each key that has one label, how many repeat one, and how many keys have both labels."""
    by_key: dict[str, Document] = {}
    conflicting: set[str] = set()
    repeated = 0
    for key, document in documents:
        repeated += key in by_key
        if by_key.setdefault(key, document).label != document.label:
            conflicting.add(key)
    for key in conflicting:
        del by_key[key]
    return by_key, repeated, len(conflicting)


def held_in(documents: Sequence[Document], files: Sequence[str], options: CorpusOptions) -> np.ndarray:
    """Whether one of some files holds the text of each document, (n,) bool."""
    if not files:
        return np.zeros(len(documents), dtype=bool)
    with Corpus.open(files, options) as corpus:
        keys = {text_key(row.document.text) for row in corpus.rows() if row.status is Status.OK}
    return np.array([text_key(document.text) in keys for document in documents])


def corpora_record(data: Corpus) -> list[dict[str, Any]]:
    """Name and SHA-256 of each training file."""
    return [{"file": name, "sha256": digest} for name, digest in data.sha256().items()]


def backbone_record(extractor: Extractor, codec: Codec) -> dict[str, Any]:
    """What a detector keeps of the language model that it was trained on."""
    return {
        "name": lasting_name(extractor.backbone.name),  # the detector is used from other working directories
        "hidden_size": extractor.backbone.hidden_size * extractor.fingerprint.layers_kept,
        "codec": codec.name,
        "fingerprint": extractor.fingerprint.to_dict(),
    } | ({} if extractor.observer is None else {"observer": extractor.observer.name})
