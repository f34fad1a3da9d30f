"""What every detector is: its methods in memory, and the card that says on disk which one it is."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, Self, runtime_checkable

import numpy as np
from typing_extensions import TypeIs

from cache.loader import LabelledCorpus
from features.errors import DetectorError
from features.token_features import TokenFeatures
from features.whole_files import whole_file

CARD_FILE = "detector.json"
FORMAT_VERSION = 1
"""Of the card and of the files that it names; another version is refused, never guessed at."""


@runtime_checkable
class Detector(Protocol):
    """Tells machine-written from human-written text by the features of its tokens.

    One that reads no hidden states says so by an attribute `needs_hidden = False` (see `needs_hidden`), one that reads
    metrics of two language models by `needs_observer = True`.
    """

    @property
    def name(self) -> str:
        """What a person calls it."""
        ...

    def fit(self, train: LabelledCorpus, validation: LabelledCorpus) -> Self:
        """Learn from cached documents, streamed, and choose by others; returns the detector."""
        ...

    def score(self, features: Sequence[TokenFeatures]) -> np.ndarray:
        """One float64 score a document (n_docs,); higher is more machine-like, for every detector."""
        ...

    def save(self, directory: Path) -> None:
        """Write the detector into a directory, made when missing."""
        ...

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote; DetectorError when it is damaged or something else."""
        ...


def needs_hidden(detector: "Detector | TextDetector") -> bool:
    """Whether a detector reads hidden states: what it says of itself, and yes where it says nothing."""
    return bool(getattr(detector, "needs_hidden", not reads_text(detector)))


def needs_observer(detector: "Detector | TextDetector") -> bool:
    """Whether a detector reads metrics of two language models: what it says of itself, and no where it says nothing."""
    return bool(getattr(detector, "needs_observer", False))


@dataclass(frozen=True)
class LabelledTexts:
    """Texts with their labels, (n,) of 0 human and 1 machine: what a detector that reads no features learns from.

    Raises:
        ValueError: when a class is missing or the lengths differ.
    """

    texts: Sequence[str]
    labels: np.ndarray

    def __post_init__(self) -> None:
        counts = np.bincount(self.labels.astype(int), minlength=2)
        if len(self.labels) != len(self.texts) or len(counts) > 2 or not counts.all():
            raise ValueError(
                f"expected {len(self.texts)} labels with both 0 (human) and 1 (machine), got "
                f"{len(self.labels)} with {counts[0]} human and {counts[1:].sum()} machine"
            )


@runtime_checkable
class TextDetector(Protocol):
    """The same for detectors that read the text itself and run no language model of the feature stage."""

    reads: Literal["text"]

    @property
    def name(self) -> str:
        """What a person calls it."""
        ...

    def fit(self, train: LabelledTexts, validation: LabelledTexts) -> Self:
        """Learn from texts and choose by others; returns the detector."""
        ...

    def score(self, texts: Sequence[str]) -> np.ndarray:
        """One float64 score a text (n_texts,); higher is more machine-like, for every detector."""
        ...

    def save(self, directory: Path) -> None:
        """Write the detector into a directory, made when missing."""
        ...

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote; DetectorError when it is damaged or something else."""
        ...


def reads_text(detector: Detector | TextDetector) -> TypeIs[TextDetector]:
    """Whether a detector reads texts themselves rather than features."""
    return getattr(detector, "reads", None) == "text"


def write_card(directory: Path, kind: str, card: dict[str, Any]) -> None:
    """Write `detector.json`. It is written last: what it names is already there.

    Args:
        directory: the detector's folder; made when missing.
        kind: which class reads it, a key of `detect.catalog.KINDS`.
        card: JSON-able description.
    """
    content = {"format_version": FORMAT_VERSION, "kind": kind, **card}
    write_bytes(directory / CARD_FILE, (json.dumps(content, indent=2) + "\n").encode())


def read_card(directory: Path, kind: str | None = None) -> dict[str, Any]:
    """Read `detector.json` of a detector of this kind, or of any where none is named.

    Raises:
        DetectorError: when it is missing, not a JSON object, or of another format version or kind.
    """
    path = directory / CARD_FILE
    card = read_json_object(path)
    if card.get("format_version") != FORMAT_VERSION:
        raise DetectorError(
            f"{path} has format version {card.get('format_version')!r}, this program reads {FORMAT_VERSION}; "
            "install the version of pawn-detect that wrote it, or train the detector again"
        )
    if kind is not None and card.get("kind") != kind:
        raise DetectorError(f"{path} describes a detector of kind {card.get('kind')!r}, expected {kind!r}")
    return card


def read_json_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file; DetectorError when there is none."""
    try:
        content = json.loads(read_bytes(path))
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError
        raise DetectorError(f"{path} is not JSON ({error}); save the detector again") from error
    if not isinstance(content, dict):
        raise DetectorError(f"{path} holds a JSON {type(content).__name__}, expected an object")
    return content


def read_bytes(path: Path) -> bytes:
    """A file's bytes; DetectorError naming the path when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DetectorError(
            f"cannot read {path} ({error.strerror}); expected a directory that a detector was saved to"
        ) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: under a temporary name, flushed, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        file.write(content)
