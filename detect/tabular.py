"""What detectors on pooled features share: reading, checking, and the part of the card that says which features."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cache.loader import LabelledCorpus
from detect.pooled import POOLINGS, Pooling, pool
from detect.protocol import write_bytes, write_card
from detect.trained import DetectorCard, Progress, sha256
from features.errors import DetectorError
from features.token_features import TokenFeatures


def balanced_weights(labels: np.ndarray) -> np.ndarray:
    """A weight for each document, (n,), so that both classes have the same total and the mean is 1."""
    share = labels.mean()
    return np.where(labels == 1, 0.5 / share, 0.5 / (1 - share))


def standardisation(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column of (n, columns); 1 for one that is constant up to rounding."""
    mean, scale = table.mean(0), table.std(0)
    scale[scale <= 8 * np.finfo(np.float64).eps * np.abs(mean)] = 1.0
    return mean, scale


@dataclass(frozen=True)
class Table:
    """Pooled features to learn from or to choose by.

    Attributes:
        vectors: (rows, columns).
        labels: (rows,) of 0 human and 1 machine.
        weights: (rows,), so that both classes have the same total; their mean is 1.
        rows_per_document: the same for all.
    """

    vectors: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    rows_per_document: int


def table_of(part: LabelledCorpus, pooling: Pooling, progress: Progress, *, prefixes: int, seed: int) -> Table:
    """The pooled features of a part's documents, and of so many random prefixes of each (see `pool`)."""
    vectors = pool(part.corpus, pooling, progress, prefixes=prefixes, seed=seed)  # (n_docs, 1 + prefixes, columns)
    labels = np.repeat(part.labels, vectors.shape[1])
    return Table(vectors.reshape(len(labels), -1), labels, balanced_weights(labels), vectors.shape[1])


def rows(features: Sequence[TokenFeatures], pooling: Pooling, card: DetectorCard) -> np.ndarray:
    """The pooled features of some documents, (n_docs, columns), n at least 1.

    Raises:
        DetectorError: when the features are not those that the detector was trained on.
        ValueError: when a document has no scored token.
    """
    hidden_size = card.backbone["hidden_size"] if pooling.needs_hidden else None
    for document in features:
        card.check_document(document, hidden_size)
        if not len(document.metrics):
            raise ValueError(f"document {document.key} has no scored token; a text needs at least 2 tokens")
    return np.stack([pooling.vector(document) for document in features])


def save_pooled(directory: Path, kind: str, card: DetectorCard, pooling: Pooling, file: str, content: bytes) -> None:
    """Write what was learnt to `file` and, last, the card with its hash and the pooling that it reads."""
    write_bytes(directory / file, content)
    reads = {"pooling": pooling.name, "columns": pooling.columns}
    write_card(directory, kind, {**asdict(card), **reads, "weights": {"file": file, "sha256": sha256(content)}})


def pooling_of(record: Mapping[str, Any], source: Path) -> Pooling:
    """The pooling that a card names.

    Raises:
        DetectorError: when this program has none of that name, or another one under it.
    """
    pooling = POOLINGS.get(str(record.get("pooling")))
    if pooling is None:
        raise DetectorError(
            f"{source} names pooling {record.get('pooling')!r}, expected one of {', '.join(POOLINGS)}; "
            "train the detector again"
        )
    if tuple(record.get("columns", ())) != pooling.columns:
        raise DetectorError(
            f"{source} was trained on other columns than this program's pooling {pooling.name!r} has; train it again"
        )
    return pooling
