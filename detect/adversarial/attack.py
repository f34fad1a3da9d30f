"""What a text attack is: documents in, changed texts out, by a strength and a seed."""

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from features.documents import Document

if TYPE_CHECKING:
    from features.backbone import Backbone


@dataclass(frozen=True)
class AttackedText:
    """What became of one text; `queries` is how often a detector was asked about it."""

    text: str
    queries: int = 0


class Attack(Protocol):
    """Changes texts. The same document, strength and seed give the same text, whatever else is in the batch.

    An attack that mixes texts of several documents is the exception: its partners come from the batch.
    """

    def apply(self, documents: Sequence[Document], strength: float, seed: int) -> list[AttackedText]:
        """One changed text for each document, in order; a text with nothing to change comes back as it was.

        Args:
            documents: human and machine texts alike; only `text` is changed.
            strength: how much is changed, in the unit that the attack's entry names; 0 changes nothing.
            seed: of every random choice.
        """
        ...


@dataclass(frozen=True)
class AttackMeans:
    """What some attacks need beside the texts.

    Attributes:
        backbone: gives the language model that judges or writes words; called once, when an attack first needs it.
        score: gives a detector's scores of texts (n,), higher = more machine-like; None where no detector is attacked.
    """

    backbone: "Callable[[], Backbone]"
    score: Callable[[Sequence[str]], np.ndarray] | None = None


def document_rng(document: Document, name: str, seed: int) -> random.Random:
    """The random choices of one attack on one text: of its own, so that company changes nothing."""
    digest = hashlib.blake2b(f"{name}\0{seed}\0{document.text}".encode("utf-8", "surrogatepass"), digest_size=8)
    return random.Random(digest.digest())
