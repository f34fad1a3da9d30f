"""What a detector costs beside the language model, and beside plain PAWN: seconds of scoring from a warm cache.

    python -m benchmarks.scoring_cost --cache CACHE --detector pawn-smollm2-135m --extraction-rate TOKENS_PER_SECOND

CACHE is one that `pawn extract` filled. Plain PAWN is an untrained network of the usual size: weights change no time.
Every detector scores the same documents, already in memory, in turns; the least of its times counts.
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.training import only_store, some_shards
from cache.loader import CachedCorpus
from detect.catalog import load_detector
from detect.pawn import PawnDetector
from detect.trained import DetectorCard
from detect.training import TrainingConfig, new_network
from features.token_features import TokenFeatures

BLOCK = 64
"""Documents scored at once."""


def main() -> None:
    """Parse, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="one kind of features")
    parser.add_argument("--detector", nargs="+", default=["pawn-smollm2-135m"], help="names or folders")
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--extraction-rate", type=float, required=True, help="tokens/s of benchmarks.extraction")
    arguments = parser.parse_args()
    documents = some_documents(arguments.cache, arguments.documents)
    scores = {"plain PAWN": plain_pawn(documents[0].hidden.shape[1]).score}
    scores |= {name: load_detector(name).detector.score for name in arguments.detector}
    found = measure(scores, documents, arguments.turns)
    print(table(found, sum(document.n_tokens for document in documents), arguments.extraction_rate))


def some_documents(cache: Path, count: int) -> list[TokenFeatures]:
    """Documents of random shards, with hidden states, in memory."""
    store = only_store(cache)
    corpus = CachedCorpus(store, some_shards(store, count))
    return [document for _, document in corpus.documents()]


def plain_pawn(hidden_size: int) -> PawnDetector:
    """The network of the paper's size, in the precision in which detectors are scored."""
    return PawnDetector(new_network(TrainingConfig(), hidden_size=hidden_size), DetectorCard(name="plain", backbone={}))


def measure(
    scores: Mapping[str, Callable[[Sequence[TokenFeatures]], np.ndarray]], documents: list[TokenFeatures], turns: int
) -> dict[str, float]:
    """The least seconds of each, over turns in which all have theirs."""
    found = dict.fromkeys(scores, float("inf"))
    for _ in range(turns):
        for name, score in scores.items():
            start = time.perf_counter()
            for first in range(0, len(documents), BLOCK):
                score(documents[first : first + BLOCK])
            found[name] = min(found[name], time.perf_counter() - start)
    return found


def table(found: dict[str, float], tokens: int, extraction_rate: float) -> str:
    """Markdown: a row a detector."""
    plain, extraction = found["plain PAWN"], tokens / extraction_rate
    rows = [
        f"| {name} | {tokens / own:,.0f} | {own / plain:.2f} | {(extraction + own) / (extraction + plain):.3f} |"
        for name, own in found.items()
    ]
    head = "| detector | tokens/s from the cache | time / plain PAWN's | the same with extraction |"
    return "\n".join([head, "|---|---|---|---|", *rows])


if __name__ == "__main__":
    main()
