"""What trained detectors share: the card, a weights file that the card knows by its hash, scoring a whole corpus."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np

from cache.loader import CachedCorpus, LabelledCorpus
from detect.calibration import BAND_STARTS
from detect.protocol import CARD_FILE, Detector, TextDetector, needs_hidden, read_bytes
from detect.splits import uniform
from features.documents import MIN_TOKENS
from features.errors import DetectorError
from features.metrics import METRIC_VERSION
from features.token_features import METRIC_NAMES, TokenFeatures

STREAMED_DOCUMENTS = 512
"""Documents of a corpus scored together: enough to sort by length, 150 MB at 256 tokens and 576 dimensions."""

Progress = Callable[[str, Mapping[str, float]], None]
"""Told of a training, each event with its numbers: "read" {documents, total} while features are pooled; "step" {epoch,
epochs, documents, total, loss} and "epoch" {epoch, loss, validation_auroc} of a network; "round" {round, rounds,
validation_auroc} of boosting; "fitted" {validation_auroc} at the end of what has no epochs."""


def silent(event: str, values: Mapping[str, float]) -> None:
    """The progress that nobody listens to."""


@dataclass(frozen=True, kw_only=True)
class DetectorCard:
    """What is known of a trained detector beside its weights; all of it JSON-able.

    Raises:
        ValueError: when the name is empty.
    """

    name: str
    backbone: dict[str, Any]  # identity of the language model that made the features
    metric_names: tuple[str, ...] = METRIC_NAMES
    metric_version: int = METRIC_VERSION
    training: dict[str, Any] = field(default_factory=dict)
    calibration: str | None = None  # file name of the human scores, in the same directory

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a detector needs a name, got ''")
        object.__setattr__(self, "metric_names", tuple(self.metric_names))

    @property
    def layers(self) -> list[int]:
        """Whose hidden states the features hold, by their fingerprint; empty for the last layer alone."""
        return list(self.backbone.get("fingerprint", {}).get("layers", ()))

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """The card in what `detector.json` holds; KeyError for a field that is missing."""
        return cls(**{name: record[name] for name in cls.__dataclass_fields__})

    def check_metrics(self, source: Path) -> None:
        """DetectorError, naming both, unless this program computes the metrics that the detector was trained on."""
        found, expected = (self.metric_names, self.metric_version), (METRIC_NAMES, METRIC_VERSION)
        if found != expected:
            raise DetectorError(
                f"{source} was trained on metrics {', '.join(found[0])} (version {found[1]}), this program "
                f"computes {', '.join(expected[0])} (version {expected[1]}); train it again"
            )

    def check_document(self, document: TokenFeatures, hidden_size: int | None) -> None:
        """Refuse features that a detector cannot read.

        Args:
            document: about to be scored.
            hidden_size: that the detector reads; None where it reads no hidden states.

        Raises:
            DetectorError: when the hidden size or the number of metrics differs.
        """
        found, metric_count = document.hidden.shape[1], document.metrics.shape[1]
        if hidden_size is not None and found != hidden_size:
            raise DetectorError(
                f"detector {self.name} reads hidden states of size {hidden_size}, the features "
                f"have {found}; extract them with the backbone {self.backbone}"
            )
        if metric_count != len(self.metric_names):
            raise DetectorError(
                f"detector {self.name} reads {len(self.metric_names)} metrics a token, the features have "
                f"{metric_count}; extract them with this version"
            )


def recipe_of(detector: object) -> dict[str, Any]:
    """All that an unfitted detector will learn by, defaults and columns included; of an ensemble each member's too."""
    config = getattr(detector, "config", None)
    own = asdict(config) if is_dataclass(config) and not isinstance(config, type) else {}
    if (pooling := getattr(detector, "pooling", None)) is not None:  # what it reads is not in its config
        own |= {"pooling": pooling.name, "columns": sha256("\n".join(pooling.columns).encode())[:16]}
    members = [recipe_of(member) for member in getattr(detector, "members", ())]
    return own | ({"member_recipes": members} if members else {})


@runtime_checkable
class TrainableDetector(Detector, Protocol):
    """A detector that learns, keeps a record of it in its card, and can tell its weights from all others."""

    card: DetectorCard

    def fit(self, train: LabelledCorpus, validation: LabelledCorpus, progress: Progress = silent) -> Self:
        """Learn from cached documents, streamed, and choose by others; the card records recipe and course."""
        ...

    def weights_sha256(self) -> str:
        """Hash of what was learnt, as `save` writes it."""
        ...


@runtime_checkable
class TrainableTextDetector(TextDetector, Protocol):
    """A detector of texts that keeps a record of its training and can tell its weights from all others."""

    @property
    def training(self) -> dict[str, Any]:
        """What is known of its training, JSON-able; `save` writes it into the card."""
        ...

    def weights_sha256(self) -> str:
        """Hash of what was learnt, as `save` writes it."""
        ...


def read_weights(path: Path, expected: str) -> bytes:
    """A weights file whose hash the card names.

    Raises:
        DetectorError: when it is missing, or another file than the card was written for.
    """
    content = read_bytes(path)
    if (found := sha256(content)) != expected:
        raise DetectorError(
            f"{path} has SHA-256 {found}, {CARD_FILE} says {expected}: one of the "
            "two is damaged or from another detector; fetch or train the detector again"
        )
    return content


def sha256(content: bytes) -> str:
    """64 hex digits."""
    return hashlib.sha256(content).hexdigest()


def scores_of(detector: Detector, corpus: CachedCorpus) -> np.ndarray:
    """The detector's score of every document of a corpus, (n,) float64; hidden states are read if it reads them."""
    return streamed_scores(detector.score, corpus if needs_hidden(detector) else corpus.without_hidden())


def streamed_scores(score: Callable[[Sequence[TokenFeatures]], np.ndarray], corpus: CachedCorpus) -> np.ndarray:
    """What `score`, a detector's method, gives every document of a corpus: (n,) float64, streamed from disk."""
    scores = np.full(len(corpus), np.nan)
    waiting: list[tuple[int, TokenFeatures]] = []

    def flush() -> None:
        if waiting:
            scores[[index for index, _ in waiting]] = score([features for _, features in waiting])
            waiting.clear()

    for member in corpus.documents():
        waiting.append(member)
        if len(waiting) == STREAMED_DOCUMENTS:
            flush()
    flush()
    return scores


def band_lengths(key: str, n_tokens: int, seed: int) -> list[int]:
    """A length in each band that a document reaches, ascending: random prefixes, then the whole (see `band_scores`)."""
    starts = [max(start, MIN_TOKENS) for start in BAND_STARTS]
    passed = [(start, end) for start, end in pairwise(starts) if end <= n_tokens]
    drawn = [start + int((end - start) * uniform(f"{key}:{start}", seed)) for start, end in passed]
    return [*drawn, n_tokens]


def band_scores(detector: Detector, corpus: CachedCorpus, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of every document at one length in each band of `detect.calibration.BAND_STARTS` that it reaches.

    That is its whole length in the band that it ends in, and a random prefix in the bands before, as a causal model
    would have seen it alone.

    Returns:
        Place in the corpus, score (float64) and number of tokens of each: (rows,), a document's rows in a row.
    """
    read = corpus if needs_hidden(detector) else corpus.without_hidden()
    found: list[tuple[int, float, int]] = []
    documents = iter(read.documents())
    while block := list(islice(documents, STREAMED_DOCUMENTS)):
        rows = [
            (place, length, features.prefix(length))
            for place, features in block
            for length in band_lengths(features.key, features.n_tokens, seed)
        ]
        scores = detector.score([part for _, _, part in rows])
        found += [(place, score, length) for (place, length, _), score in zip(rows, scores.tolist(), strict=True)]
    places, scores_, lengths = zip(*found, strict=True)
    return np.array(places), np.array(scores_), np.array(lengths)
