"""Splits that keep every source on one side."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from detect.disjoint_sets import DisjointSets
from detect.near_duplicates import join_near_duplicates
from features.documents import Document, text_key
from features.errors import UsageError

OPENING_CHARACTERS = 100
"""Texts that begin alike are one source: corpora repeat a text with another ending (cut, continued)."""


def split_groups(
    documents: Sequence[Document], fractions: dict[str, float], seed: int, numbers: Sequence[int] | None = None
) -> list[str]:
    """The part of each document, such that nothing shared crosses parts.

    A source (see `sources`) falls by a hash of the seed and its smallest text key, whatever else is in the corpus:
    adding documents moves only the sources that they join (or, where more than eight texts are nearly alike, part).
    Hashing is blind to label, domain and generator,
    so each is split by `fractions` up to chance.

    Args:
        documents: scorable texts.
        fractions: share of each part by name, adding up to 1; the order of the names matters.
        seed: another seed, another split.
        numbers: the sources of the documents where they are known already; None: found here.

    Returns:
        A name from `fractions` for each document.

    Raises:
        UsageError: when the fractions are not positive or do not add up to 1.
    """
    total = sum(fractions.values())
    if not all(fraction > 0 for fraction in fractions.values()) or abs(total - 1) > 1e-9:
        raise UsageError(f"expected fractions above 0 that add up to 1, got {fractions} (sum {total:.6g})")
    names = list(fractions)
    upper = np.cumsum(list(fractions.values()))[:-1]
    keys = [text_key(document.text) for document in documents]
    if numbers is None:
        numbers = sources(documents)
    smallest: dict[int, str] = {}
    for source, key in zip(numbers, keys, strict=True):
        smallest[source] = min(key, smallest.get(source, key))
    part = {
        source: names[int(np.searchsorted(upper, uniform(key, seed), side="right"))] for source, key in smallest.items()
    }
    return [part[source] for source in numbers]


def opening(text: str) -> str:
    """First 100 characters of a text after case folding and collapsing white space."""
    words = text.split(maxsplit=OPENING_CHARACTERS)[:OPENING_CHARACTERS]  # 100 words hold 100 characters
    return " ".join(words).casefold()[:OPENING_CHARACTERS]


def sources(documents: Sequence[Document]) -> list[int]:
    """The source of each document as a number: equal numbers, one source.

    Documents with the same `group`, the same text or the same opening are one source, near-duplicates are
    (`detect.near_duplicates`), and so is any chain of them.
    """
    sets = DisjointSets(len(documents))
    first_with: dict[tuple[str, str], int] = {}
    for index, document in enumerate(documents):
        traits = [("text", text_key(document.text)), ("opening", opening(document.text))]
        if document.group is not None:
            traits.append(("group", document.group))
        for trait in traits:
            sets.join(index, first_with.setdefault(trait, index))
    join_near_duplicates([document.text for document in documents], sets)
    return [sets.root(index) for index in range(len(documents))]


def versions(documents: Sequence[Document]) -> list[int]:
    """`sources` by content alone: equal numbers, texts that are the same, begin so, or are near-duplicates.

    For leaving out all that tells of some texts: `group` joins texts of other domains too where a corpus numbers each
    domain's sources from 0.
    """
    return sources([replace(document, group=None) for document in documents])


def uniform(key: str, seed: int) -> float:
    """A number in [0, 1) that the key and the seed alone decide."""
    digest = hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2**48
