"""Rows of a corpus -> features, each distinct text computed once, in blocks that a kill cannot half-write."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from cache.codec import Codec
from cache.codec_catalog import as_stored
from cache.store import FeatureStore
from features.backbone import Backbone, Encoding
from features.documents import Document, Status, text_key
from features.extractor import Extractor, long_enough
from features.observer import load_observer
from features.token_features import TokenFeatures
from pipelines.corpora import Row

BLOCK_TOKENS = 32_768
"""Tokens in a block, and so in a shard: at most 20 seconds of work lost by a kill on two cores."""

BLOCK_ROWS = 1_024
"""Rows in a block of scoring, however little there is to compute for them."""

ENCODE_ROWS = 64
ENCODE_CHARACTERS = 4_000_000
"""Rows tokenised together, and the characters of text held at a time."""


def load_extractor(
    backbone: Backbone, *, max_length: int, layers: Sequence[int] = (), observer: str | None = None
) -> Extractor:
    """An extractor with its observer, by the name that `features.observer.load_observer` takes.

    Raises:
        BackboneError, UsageError: as that and `Extractor` do.
    """
    second = load_observer(observer, backbone) if observer else None
    return Extractor(backbone, max_length=max_length, layers=layers, observer=second)


def spread_layers(backbone: Backbone) -> list[int]:
    """Three layers of a backbone, a third of its depth apart: for detectors of several layers when none are named."""
    last = backbone.network.layer_count
    return sorted({max(1, round(last * third / 3)) for third in (1, 2, 3)})


@dataclass(slots=True)
class Item:
    """One row on its way: its text is gone, what is needed of it is here."""

    id: str
    status: Status
    carried: dict[str, object]
    key: str | None = None
    n_tokens: int | None = None
    encoding: Encoding | None = None  # None: not scorable, or in the store already


@dataclass
class ExtractionSummary:
    """What an extraction did."""

    rows: int = 0
    by_status: Counter[str] = field(default_factory=Counter)
    computed: int = 0
    tokens: int = 0
    shards: int = 0

    @property
    def failed(self) -> int:
        """Rows without features."""
        return self.rows - self.by_status[Status.OK]


def prepare(rows: Iterable[Row], extractor: Extractor, store: FeatureStore | None) -> Iterator[Item]:
    """Key, tokenise and judge each row; what the store holds is not tokenised again."""
    group: list[tuple[Item, Document]] = []
    characters = 0
    for row in rows:
        item = Item(row.document.id, row.status, row.carried)
        if row.status is Status.OK:
            item.key = text_key(row.document.text)
        group.append((item, row.document))
        characters += len(row.document.text)
        if len(group) >= ENCODE_ROWS or characters >= ENCODE_CHARACTERS:
            yield from _encode(group, extractor, store)
            group, characters = [], 0
    yield from _encode(group, extractor, store)


def _encode(group: list[tuple[Item, Document]], extractor: Extractor, store: FeatureStore | None) -> Iterator[Item]:
    new = []
    for item, document in group:
        if item.key is None:
            continue
        if store is not None and item.key in store:
            item.n_tokens = store.locate(item.key).n_tokens
        else:
            new.append((item, document.text))
    for (item, _), encoding in zip(new, extractor.encode([text for _, text in new]), strict=True):
        item.n_tokens = len(encoding.token_ids)
        if long_enough(encoding):
            item.encoding = encoding
        else:
            item.status = Status.TOO_SHORT
    yield from (item for item, _ in group)


def extract_corpus(
    rows: Iterable[Row],
    extractor: Extractor,
    store: FeatureStore,
    progress: Callable[[int, int], None] = lambda rows, tokens: None,
) -> ExtractionSummary:
    """Fill the store with the features of every scorable row.

    A block is made of what is missing, in input order, and is committed as one shard. A killed run leaves
    whole shards of the first blocks, so the next run forms the same remaining blocks and the same shards.

    Args:
        rows: the corpus.
        extractor: the model.
        store: where features go; must be of the extractor's fingerprint.
        progress: called with rows read and tokens computed so far, after each block.
    """
    summary = ExtractionSummary()
    pending: dict[str, Encoding] = {}

    def flush() -> None:
        if pending:
            store.write(extractor.extract(list(pending), list(pending.values())))
            summary.computed += len(pending)
            summary.tokens += sum(len(encoding.token_ids) for encoding in pending.values())
            summary.shards += 1
            pending.clear()
        progress(summary.rows, summary.tokens)

    waiting = 0
    for item in prepare(rows, extractor, store):
        summary.rows += 1
        summary.by_status[item.status] += 1
        if item.encoding is not None and item.key and item.key not in pending and item.key not in store:
            pending[item.key] = item.encoding
            waiting += len(item.encoding.token_ids)
            if waiting >= BLOCK_TOKENS:
                flush()
                waiting = 0
    flush()
    return summary


def blocks(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Consecutive rows in blocks of BLOCK_TOKENS tokens or BLOCK_ROWS rows; the same rows, the same blocks."""
    block: list[Item] = []
    tokens = 0
    for item in items:
        block.append(item)
        tokens += item.n_tokens or 0
        if tokens >= BLOCK_TOKENS or len(block) >= BLOCK_ROWS:
            yield block
            block, tokens = [], 0
    if block:
        yield block


def block_features(
    block: list[Item], extractor: Extractor, store: FeatureStore | None, codec: Codec, *, hidden: bool = True
) -> dict[str, TokenFeatures]:
    """Features of a block's scorable rows by key: read where the store has them, computed and kept where not.

    All of them as `codec` gives them back, so that a score is the same with a cache and without. Where `hidden` is
    False, those of the store come without hidden states.
    """
    wanted = {item.key: item for item in block if item.key and item.status is Status.OK}
    missing = {
        key: item.encoding
        for key, item in wanted.items()
        if item.encoding is not None and (store is None or key not in store)
    }
    computed = extractor.extract(list(missing), list(missing.values())) if missing else []
    found = {features.key: as_stored(features, codec, extractor.fingerprint.layers_kept) for features in computed}
    if store is not None:
        if computed:
            store.write(computed)
        found |= store.read((key for key in wanted if key not in found), hidden=hidden)
    return found
