"""How fast PAWN trains from a warm cache, where the time goes, and whether memory grows with the cache.

    python -m benchmarks.training --cache CACHE --extraction-rate TOKENS_PER_SECOND

CACHE is one that `pawn extract` filled. Labels are drawn at random: they change nothing that is measured here.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from cache.codec_catalog import codec_in
from cache.loader import CachedCorpus, LabelledCorpus
from cache.store import FeatureStore, read_row_groups
from detect.pawn_network import collate
from detect.pawn_scoring import corpus_scores
from detect.training import TrainingConfig, crop_transform, fit_pawn, new_network, training_precision
from features.backbone import Fingerprint

STAGES = ("reading and decoding", "reading, decoding and collating", "reading without hidden states")


def main() -> None:
    """Parse; each size in a process of its own, so that its peak of memory is its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="one kind of features")
    parser.add_argument("--documents", type=int, nargs="+", default=[2000, 10_000])
    parser.add_argument("--extraction-rate", type=float, help="tokens/s of benchmarks.extraction, for the ratios")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.cache, arguments.one)))
        return
    found = []
    for count in arguments.documents:
        command = [sys.executable, "-m", "benchmarks.training", "--cache", str(arguments.cache), "--one", str(count)]
        found.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    print(table(found, arguments.extraction_rate))


def measure(cache: Path, count: int) -> dict[str, float]:
    """One epoch over `count` documents: as it runs, and its stages one by one with nothing beside them."""
    store = only_store(cache)
    keys = some_shards(store, count)
    corpus = CachedCorpus(store, keys)
    labels = np.random.default_rng(0).integers(0, 2, len(keys))
    tokens = sum(store.locate(key).n_tokens for key in keys)
    config = TrainingConfig(epochs=1, precision=training_precision())
    small = LabelledCorpus(corpus.subset(range(64)), labels[:64])
    result: dict[str, float] = {"documents": len(keys), "tokens": tokens}

    (_, first) = next(corpus.subset([0]).documents())
    network = new_network(config, hidden_size=first.hidden.shape[1])
    start = time.perf_counter()
    fit_pawn(network, LabelledCorpus(corpus, labels), small, config)
    result["epoch"] = time.perf_counter() - start
    start = time.perf_counter()
    corpus_scores(network, corpus, precision=config.precision)
    result["scoring"] = time.perf_counter() - start
    result["peak memory, MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    result |= stages(corpus, config)
    return result


def only_store(cache: Path) -> FeatureStore:
    """The store of a cache that holds one kind of features."""
    (folder,) = (path for path in cache.iterdir() if path.is_dir())
    fingerprint = Fingerprint(**json.loads((folder / "fingerprint.json").read_text()))
    return FeatureStore(cache, fingerprint, codec_in(folder, folder.name.partition("-")[2]))


def some_shards(store: FeatureStore, count: int) -> list[str]:
    """Keys of `count` documents in random shards: corpora lie one after the other, and their lengths differ."""
    shards: dict[Path, list[str]] = {}
    for key in list(store.keys()):
        shards.setdefault(store.locate(key).shard, []).append(key)
    order = np.random.default_rng(0).permutation(len(shards))
    by_shard = list(shards.values())
    return [key for place in order for key in by_shard[place]][:count]


def stages(corpus: CachedCorpus, config: TrainingConfig) -> dict[str, float]:
    """Seconds of reading with decoding, of the loader with collating, and of what reads no hidden states."""
    groups: dict[Path, list[int]] = {}
    for shard, group in corpus.places:
        groups.setdefault(shard, []).append(group)
    start = time.perf_counter()
    for shard, numbers in groups.items():
        for _ in read_row_groups(shard, numbers):
            pass
    reading = time.perf_counter() - start
    start = time.perf_counter()
    for _ in corpus.without_hidden().documents():
        pass
    light = time.perf_counter() - start
    limits = {"batch_size": config.batch_size, "token_budget": config.token_budget}
    start = time.perf_counter()
    for batch in corpus.epoch(np.random.default_rng(0), **limits, transform=crop_transform(config)):
        collate(batch.features)
    collating = time.perf_counter() - start
    return {
        "reading and decoding": reading,
        "reading, decoding and collating": collating,
        "reading without hidden states": light,
    }


def table(found: list[dict[str, float]], extraction_rate: float | None) -> str:
    """Markdown: a column a size."""

    def line(name: str, values: list[float], digits: int = 0) -> str:
        return f"| {name} | {' | '.join(f'{value:,.{digits}f}' for value in values)} |"

    lines = [line("documents", [row["documents"] for row in found]), "|---|" + "---|" * len(found)]
    for name in ("epoch", "scoring", *STAGES):
        rates = [row["tokens"] / row[name] for row in found]
        lines += [line(f"{name}, s", [row[name] for row in found], 1), line(f"{name}, tokens/s", rates)]
        if extraction_rate and name in ("epoch", "scoring", STAGES[-1]):
            lines.append(line(f"{name}, times extraction", [rate / extraction_rate for rate in rates]))
    lines.append(line("documents/s in training", [row["documents"] / row["epoch"] for row in found]))
    lines.append(line("peak memory, MB", [row["peak memory, MB"] for row in found]))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
