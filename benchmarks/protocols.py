"""Leave-one-out protocols over labelled corpora: which documents are learnt from, which are judged on."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from detect.splits import split_groups
from features.documents import Document
from pipelines.training import SPLIT


@dataclass(frozen=True)
class Fold:
    """One training run and what it is judged on: indices into the documents.

    `calibration` documents fix the thresholds; only their human texts count.
    """

    protocol: str
    held_out: str
    train: np.ndarray
    validation: np.ndarray
    calibration: np.ndarray
    test: np.ndarray


def folds(documents: Sequence[Document], corpora: Sequence[str], protocol: str, seed: int) -> Iterator[Fold]:
    """The folds of a protocol, each over the same split by sources as `pawn train` makes.

    What is left out is judged on whole; a generator's texts are judged against the human texts of the test part.

    Args:
        documents: labelled, with domain and generator.
        corpora: the corpus of each document.
        protocol: "corpus", "domain", "generator" (each value left out once) or "in-domain".
        seed: of the split by sources.

    Raises:
        KeyError: for an unknown protocol.
    """
    parts = np.array(split_groups(documents, SPLIT, seed))
    values: dict[str, Callable[[], list[str]]] = {
        "in-domain": lambda: ["nothing"] * len(documents),
        "corpus": lambda: list(corpora),
        "domain": lambda: [str(document.domain) for document in documents],
        "generator": lambda: [_generator(document) for document in documents],
    }
    field = np.array(values[protocol]())
    machine = np.array([document.label == 1 for document in documents])
    for held_out in sorted(set(field[machine])):
        left_out = field == held_out
        seen, test = ~left_out, left_out
        if protocol == "in-domain":
            seen, test = np.ones(len(documents), bool), parts == "test"
        elif protocol == "generator":
            test = left_out | ((parts == "test") & ~machine)
        learnt = (np.flatnonzero(seen & (parts == part)) for part in ("train", "validation", "calibration"))
        yield Fold(protocol, held_out, *learnt, np.flatnonzero(test))


def _generator(document: Document) -> str:
    """Corpora spell the same generator in different cases."""
    return str(document.generator).lower()
