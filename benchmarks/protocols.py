"""Leave-one-out protocols over labelled corpora: which documents are learnt from, which are judged on."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from detect.splits import split_groups
from features.documents import Document

HELD_OUT = {"train": 0.75, "validation": 0.1, "test": 0.15}
"""Shares of the sources. What a protocol leaves out is judged on whole; human texts that a generator's texts are
judged against come from the test part."""


@dataclass(frozen=True)
class Fold:
    """One training run and what it is judged on: indices into the documents."""

    protocol: str
    held_out: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def folds(documents: Sequence[Document], corpora: Sequence[str], protocol: str, seed: int) -> Iterator[Fold]:
    """The folds of a protocol.

    Args:
        documents: labelled, with domain and generator.
        corpora: the corpus of each document.
        protocol: "corpus", "domain", "generator" (each value left out once) or "in-domain".
        seed: of the split by sources.

    Raises:
        KeyError: for an unknown protocol.
    """
    parts = np.array(split_groups(documents, HELD_OUT, seed))
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
        if protocol == "in-domain":
            seen, test = parts != "test", parts == "test"
        elif protocol == "generator":
            # The sources of the human test texts are out of training; so are the generator's texts.
            seen, test = (parts != "test") & ~left_out, left_out | ((parts == "test") & ~machine)
        else:
            seen, test = ~left_out, left_out
        validation = seen & (parts == "validation")
        yield Fold(
            protocol, held_out, *(np.flatnonzero(mask) for mask in (seen & (parts != "validation"), validation, test))
        )


def _generator(document: Document) -> str:
    """Corpora spell the same generator in different cases."""
    return str(document.generator).lower()
