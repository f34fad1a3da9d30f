"""Whether the cost of a document grows with the corpus: time, memory, shards, and finding what is there already.

    python -m benchmarks.scaling --data FILE --backbone DIR --documents 1000 10000 100000

Documents are made by recombining the sentences of FILE. What is measured is the pipeline, so a small DIR of random
weights does; with a real backbone its forward passes are all that can be seen.
"""

import argparse
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl

SENTENCES = 4
"""Sentences of a made-up document."""


def main() -> None:
    """Parse; each size in processes of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Parquet with a column text")
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--documents", type=int, nargs="+", default=[1000, 10_000, 100_000])
    arguments = parser.parse_args()
    print("| documents | first run, s | ms/document | again, s | us/document | peak memory, MB | again, MB | shards |")
    print("|---|---|---|---|---|---|---|---|")
    for count in arguments.documents:
        with tempfile.TemporaryDirectory() as folder:
            corpus = Path(folder) / "corpus.parquet"
            made_up(arguments.data, count).write_parquet(corpus)
            first, first_memory = extract(corpus, arguments.backbone, Path(folder) / "cache")
            again, again_memory = extract(corpus, arguments.backbone, Path(folder) / "cache")
            shards = len(list((Path(folder) / "cache").glob("*/*.parquet")))
        print(
            f"| {count:,} | {first:.1f} | {1e3 * first / count:.2f} | {again:.1f} | {1e6 * again / count:.0f} | "
            f"{first_memory:,.0f} | {again_memory:,.0f} | {shards:,} |",
            flush=True,
        )


def made_up(data: Path, count: int) -> pl.DataFrame:
    """Documents of random sentences, every one different."""
    texts = pl.read_parquet(data, columns=["text"])["text"].to_list()
    sentences = [part for text in texts for part in re.split(r"(?<=[.!?])\s+", text) if 40 < len(part) < 200]
    rng = random.Random(0)
    return pl.DataFrame({"text": [f"{i}. " + " ".join(rng.choices(sentences, k=SENTENCES)) for i in range(count)]})


def extract(corpus: Path, backbone: str, cache: Path) -> tuple[float, float]:
    """Seconds and peak megabytes of `pawn extract`, a whole process."""
    command = ["-m", "pipelines.cli", "extract", str(corpus), "--backbone", backbone, "--cache", str(cache)]
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command], stderr=subprocess.PIPE)
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(errors.decode())
    return time.perf_counter() - start, usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
