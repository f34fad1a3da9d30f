"""Documents out of the cache in batches, without ever holding their hidden states.

An epoch reads row groups in random order, a buffer of them at a time (the next one while this one is used),
shuffles the documents inside the buffer and cuts it into batches of similar length. A batch so mixes
documents of many places of the corpus, memory holds two buffers (and the row groups of whatever batch the
caller still holds), and little of a batch is padding.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cache.store import ROW_GROUP_DOCUMENTS, FeatureStore, read_row_groups
from features.memory import release_freed
from features.token_features import TokenFeatures

BUFFER_GROUPS = 32
"""Row groups in a buffer: 512 documents, 150 MB of float16 states at 256 tokens and 576 dimensions."""

LENGTH_NOISE = 0.15
"""Spread of the noise on log-lengths before batches are cut: texts of one length tend to be of one corpus,
and batches of one corpus make poor gradients. Costs a few percent of padding."""

Transform = Callable[[TokenFeatures, np.random.Generator], TokenFeatures]


@dataclass(frozen=True, slots=True)
class Batch:
    """Some documents with their places in the corpus that they came from."""

    indices: np.ndarray  # (batch,) into CachedCorpus.keys
    features: list[TokenFeatures]


class CachedCorpus:
    """Documents of a feature store, in an order of one's own, read from disk as they are needed.

    Attributes:
        keys: of the documents, in their order.
        codec: form of their hidden states on disk.
        derived: by the name of a computation, its settings, and what it gave of documents by key: small things that are
            kept for the next who asks. Every part shares it.
    """

    def __init__(self, store: FeatureStore, keys: Sequence[str]) -> None:
        """Raises KeyError for a key that the store does not hold, ValueError for a repeated one."""
        if len(set(keys)) != len(keys):
            raise ValueError(f"expected distinct keys, got {len(keys) - len(set(keys))} repeated ones")
        self.keys = list(keys)
        self.codec = store.codec
        self.derived: dict[str, tuple[tuple[int, int], dict[str, np.ndarray]]] = {}
        self._hidden = True
        self._groups: dict[tuple[Path, int], list[tuple[int, int]]] = {}
        for index, key in enumerate(self.keys):
            location = store.locate(key)
            group, row = divmod(location.row, ROW_GROUP_DOCUMENTS)
            self._groups.setdefault((location.shard, group), []).append((row, index))

    def __len__(self) -> int:
        """How many documents."""
        return len(self.keys)

    @property
    def places(self) -> list[tuple[Path, int]]:
        """The row groups (shard, number) that hold the documents, in the order that they lie on disk."""
        return sorted(self._groups)

    def subset(self, indices: Sequence[int]) -> "CachedCorpus":
        """Some of the documents, renumbered from 0 in the order given.

        Raises:
            ValueError: for a repeated index.
            IndexError: for one that is out of range, or negative.
        """
        places = {int(index): place for place, index in enumerate(indices)}
        if len(places) != len(indices):
            raise ValueError(f"expected distinct indices, got {len(indices) - len(places)} repeated ones")
        if wrong := [index for index in places if not 0 <= index < len(self)]:
            raise IndexError(f"expected indices from 0 to {len(self) - 1}, got {wrong[0]}")
        part = copy(self)
        part.keys = [self.keys[index] for index in indices]
        part._groups = {}
        for group, members in self._groups.items():
            kept = [(row, places[index]) for row, index in members if index in places]
            if kept:
                part._groups[group] = kept
        return part

    def without_hidden(self) -> "CachedCorpus":
        """The same documents for who reads no hidden states: those stay on disk, and `hidden` is (n, 0)."""
        light = copy(self)
        light._hidden = False
        light.derived = {}
        return light

    def documents(self) -> Iterator[tuple[int, TokenFeatures]]:
        """Every document once with its index, in the order that they lie on disk."""
        for buffer in self._buffers(self.places):
            yield from buffer
            del buffer  # free before the reader begins with the one after the next

    def epoch(
        self,
        rng: np.random.Generator,
        *,
        batch_size: int,
        token_budget: int,
        transform: Transform | None = None,
    ) -> Iterator[Batch]:
        """Every document once, shuffled, in batches of similar length.

        Args:
            rng: source of all randomness; the same state gives the same batches.
            batch_size: most documents in a batch.
            token_budget: most padded tokens in a batch (a single longer document still goes).
            transform: applied to each document before lengths are compared, e.g. a random crop.
        """
        order = self.places
        rng.shuffle(order)
        for buffer in self._buffers(order):
            changed = [(i, transform(f, rng) if transform else f) for i, f in buffer]
            lengths = np.array([f.n_tokens for _, f in changed])
            noisy = np.log(lengths) + rng.normal(0, LENGTH_NOISE, len(lengths))
            batches = _cut(np.argsort(noisy, kind="stable"), lengths, batch_size, token_budget)
            for position in rng.permutation(len(batches)):
                members = batches[position]
                yield Batch(np.array([changed[m][0] for m in members]), [changed[m][1] for m in members])
            del buffer, changed  # free before the reader begins with the one after the next

    def _buffers(self, order: Sequence[tuple[Path, int]]) -> Iterator[list[tuple[int, TokenFeatures]]]:
        """Buffers of (index, features) for row groups in an order, the next one read while one is used."""
        parts = [order[i : i + BUFFER_GROUPS] for i in range(0, len(order), BUFFER_GROUPS)]
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="cache-reader") as reader:
            ahead: deque[Future[list[tuple[int, TokenFeatures]]]] = deque()
            for part in parts:
                ahead.append(reader.submit(self._read, part))
                if len(ahead) == 2:
                    yield ahead.popleft().result()  # kept by no name here: it is freed when its user drops it
                    release_freed()
            while ahead:
                yield ahead.popleft().result()

    def _read(self, groups: Sequence[tuple[Path, int]]) -> list[tuple[int, TokenFeatures]]:
        by_shard: dict[Path, list[int]] = {}
        for shard, group in groups:
            by_shard.setdefault(shard, []).append(group)
        found = []
        for shard, numbers in by_shard.items():
            read = read_row_groups(shard, numbers, hidden=self._hidden, codec=self.codec)
            for number, documents in zip(numbers, read, strict=True):
                found += [(index, documents[row]) for row, index in self._groups[shard, number]]
        return found


@dataclass(frozen=True)
class LabelledCorpus:
    """Cached documents with their labels, (n,) of 0 human and 1 machine."""

    corpus: CachedCorpus
    labels: np.ndarray

    def __post_init__(self) -> None:
        """Raises ValueError when a class is missing or the lengths differ."""
        counts = np.bincount(self.labels.astype(int), minlength=2)
        if len(self.labels) != len(self.corpus) or len(counts) > 2 or not counts.all():
            raise ValueError(
                f"expected {len(self.corpus)} labels with both 0 (human) and 1 (machine), got "
                f"{len(self.labels)} with {counts[0]} human and {counts[1:].sum()} machine"
            )

    def without_hidden(self) -> "LabelledCorpus":
        """The same for who reads no hidden states (see `CachedCorpus.without_hidden`)."""
        return LabelledCorpus(self.corpus.without_hidden(), self.labels)


def _cut(order: np.ndarray, lengths: np.ndarray, batch_size: int, token_budget: int) -> list[list[int]]:
    """Consecutive runs of an order, each within both limits."""
    batches: list[list[int]] = [[]]
    longest = 0
    for member in order.tolist():
        longest = max(longest, int(lengths[member]))
        batch = batches[-1]
        if batch and (len(batch) == batch_size or (len(batch) + 1) * longest > token_budget):
            batches.append([])
            longest = int(lengths[member])
        batches[-1].append(member)
    return [batch for batch in batches if batch]
