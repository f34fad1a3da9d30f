"""Near-duplicate texts: found by MinHash (Broder 1997) in bands (locality-sensitive hashing), then checked exactly.

Shapes: `texts`, `shingles` (of all texts at hand, one text's after another's), `hashes` (`BANDS * ROWS`), `pairs`.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np

from detect.disjoint_sets import DisjointSets
from detect.marks import MARKS

SHINGLE_WORDS = 5
"""Texts of one subject share words and phrases; runs of five words they share by copying."""

SIMILARITY = 0.3
"""Least Jaccard similarity of the shingle sets of near-duplicates.

A changed word costs each text the five shingles that it is in: 0.3 is one word in nine changed, here and there, or
46% of each text in common. Of 10,852 texts (DetectRL, Fast-DetectGPT's, OUTFOX's) about fifty pairs of 0.28 to 0.61
that no group or opening joined were read: each was one text twice (attacked, paraphrased, cut at another sentence) or a
model's refusal in the same words. Of the pairs that share a shingle at all, 98% are below 0.1.
"""

ROWS = 2
BANDS = 60
"""A pair of similarity s is compared with probability 1 - (1 - s^2)^60: 0.9965 at 0.3, 0.99997 at 0.4, 1 - 3e-8 at 0.5;
and 0.14 at 0.05, so that unlike texts cost little."""

NEIGHBOURS = 8
"""Texts after it in its bucket that a text is compared with: all of a small one, a chain through a large one."""

_PROMISING = 0.13
"""Share of equal hashes of a pair that is checked. At similarity 0.3 it is 0.3 +- 0.042: four deviations off."""

_CHUNK_SHINGLES = 1 << 16
"""Shingles hashed at once: 256 KB stay in the processor's cache."""

_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Scripts written without spaces (Thai, Lao, Burmese, Khmer, kana, ideographs): each character is a word."""

_WORD = re.compile(f"[{_UNSPACED}]|[^\\W{_UNSPACED}]+(?:[{MARKS}]+[^\\W{_UNSPACED}]*)*")

_FACTORS = np.frombuffer(hashlib.shake_128(b"near-duplicates").digest(4 * BANDS * ROWS), dtype="<u4") | np.uint32(1)
"""(hashes,) odd: multiplied by each, modulo 2^32, the shingles are in another order."""


class WordHashes(dict[str, int]):
    """64 bits of BLAKE2b of each word, kept once computed: the same on every machine, unlike Python's `hash`."""

    def __missing__(self, word: str) -> int:
        """Compute and keep it."""
        digest = hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        self[word] = value = int.from_bytes(digest, "little")
        return value


def join_near_duplicates(texts: Sequence[str], sets: DisjointSets) -> None:
    """Join the numbers of texts whose similarity is `SIMILARITY` or more, and no others.

    Similarity is the Jaccard similarity of the sets of `SHINGLE_WORDS` case-folded words in a row, punctuation and
    white space left out; a shorter text is one shingle. Texts without a word are like no other. A pair just above the
    limit is missed with a probability of 0.004; in a bucket of more than `NEIGHBOURS` texts a text is compared with
    those that are next to it by another hash. Nothing depends on the order of the texts.

    Args:
        texts: any.
        sets: of the numbers of the texts; pairs that are in one set already are not looked at.
    """
    words = WordHashes()
    distinct: dict[bytes, tuple[int, np.ndarray]] = {}
    for index, text in enumerate(texts):
        found = shingles(text, words)
        if len(found):
            digest = hashlib.blake2b(found.tobytes(), digest_size=16).digest()
            first, _ = distinct.setdefault(digest, (index, found))
            sets.join(index, first)
    if len(distinct) < 2:
        return
    members = [distinct[digest] for digest in sorted(distinct)]  # by content: no trace of the order of the texts
    hashes = min_hashes([found for _, found in members])
    for one, other in _promising(hashes):
        (first, some), (second, others) = members[one], members[other]
        if sets.root(first) != sets.root(second) and jaccard(some, others) >= SIMILARITY:
            sets.join(first, second)


def shingles(text: str, words: WordHashes) -> np.ndarray:
    """Hashes of the distinct shingles of a text, ascending: (shingles of the text,) uint64."""
    found = _WORD.findall(unicodedata.normalize("NFC", text).casefold())
    word = np.fromiter(map(words.__getitem__, found), dtype=np.uint64, count=len(found))
    if not len(word):
        return word
    span = min(SHINGLE_WORDS, len(word))
    mixed = np.full(len(word) - span + 1, span, dtype=np.uint64)
    for offset in range(span):
        mixed = _mixed(mixed ^ word[offset : len(word) - span + 1 + offset])
    return np.unique(mixed)


def _mixed(values: np.ndarray) -> np.ndarray:
    """The finaliser of MurmurHash3: one-to-one on uint64, every bit depends on every other."""
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        values = (values ^ (values >> np.uint64(33))) * np.uint64(factor)
    return np.asarray(values ^ (values >> np.uint64(33)))


def jaccard(one: np.ndarray, other: np.ndarray) -> float:
    """Shared over all of two ascending arrays of distinct values."""
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / (len(one) + len(other) - common)


def min_hashes(sets: Sequence[np.ndarray]) -> np.ndarray:
    """The smallest shingle of each text in each order: (hashes, texts) uint32.

    Two texts agree in an order with a probability of their similarity.
    """
    ends = np.cumsum([len(found) for found in sets])
    table = np.empty((len(_FACTORS), len(sets)), dtype=np.uint32)
    start = 0
    while start < len(sets):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _CHUNK_SHINGLES, side="right")))
        values = (np.concatenate(sets[start:stop]) >> np.uint64(32)).astype(np.uint32)
        begins = np.concatenate([[0], ends[start : stop - 1] - before])
        for row, factor in zip(table, _FACTORS, strict=True):
            row[start:stop] = np.minimum.reduceat(values * factor, begins)
        start = stop
    return table


def _promising(hashes: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs of texts that share a bucket of a band and enough hashes, each once; (hashes, texts)."""
    codes = np.unique(np.concatenate([_neighbours(hashes, band) for band in range(BANDS)]))
    count = hashes.shape[1]
    rows = np.ascontiguousarray(hashes.T)  # (texts, hashes)
    for start in range(0, len(codes), 1 << 14):
        one, other = np.divmod(codes[start : start + (1 << 14)], count)
        promising = (rows[one] == rows[other]).mean(axis=1) >= _PROMISING
        yield from zip(one[promising].tolist(), other[promising].tolist(), strict=True)


def _neighbours(hashes: np.ndarray, band: int) -> np.ndarray:
    """Pairs in the buckets of a band, as `first * texts + second`: (pairs,).

    A bucket is in the order of the next band, so that in a large one texts that are alike are near each other.
    """
    count = hashes.shape[1]
    rows = np.roll(hashes, -band * ROWS, axis=0)[: 2 * ROWS]  # the band, then the next one
    order = np.lexsort(rows[::-1])
    first = np.concatenate([[True], (np.diff(rows[:ROWS, order].astype(np.int64), axis=1) != 0).any(axis=0)])
    bucket = np.cumsum(first)  # of each in that order
    found = []
    for distance in range(1, min(NEIGHBOURS, count - 1) + 1):
        place = np.flatnonzero(bucket[distance:] == bucket[:-distance])
        if not len(place):
            break
        one, other = order[place], order[place + distance]
        found.append(np.minimum(one, other) * count + np.maximum(one, other))
    return np.concatenate(found) if found else np.empty(0, dtype=np.int64)
