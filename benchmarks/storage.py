"""What each codec costs: bytes a token, speed, and what detection loses.

    python -m benchmarks.storage --data FILE... --cache CACHE --folder DIR --train -o storage.json

CACHE holds the features with --codec float16; each codec gets a cache of its own in DIR, transcoded from there. With
--train, PAWN is trained and judged through each codec on the in-domain split, for every --seeds.
"""

import argparse
import json
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from benchmarks.generalisation import RECIPES, judge, load, pawn_scores
from cache.codec import Codec
from cache.codec_catalog import codec_named
from cache.store import FeatureStore, open_shard, read_shard, shards_in
from detect.protocol import write_bytes
from detect.training import training_precision
from features.backbone import Fingerprint
from pipelines.progress import ProgressLine
from pipelines.protocols import folds

CODECS = ("float16", "int8", "int4", "auto")


def main() -> None:
    """Parse, transcode, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", required=True)
    parser.add_argument("--cache", type=Path, required=True, help="cache with float16 hidden states")
    parser.add_argument("--folder", type=Path, required=True, help="where the transcoded caches go")
    parser.add_argument("--codecs", nargs="+", default=CODECS)
    parser.add_argument("--train", action="store_true", help="train and judge PAWN through each codec")
    parser.add_argument("--recipe", default="crops", choices=list(RECIPES))
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = json.loads(arguments.output.read_text()) if arguments.output.is_file() else []
    line = ProgressLine()
    source = next(path for path in arguments.cache.iterdir() if path.name.endswith("-float16"))
    fingerprint = Fingerprint(**json.loads((source / "fingerprint.json").read_text()))
    for name in arguments.codecs:
        codec = codec_named(name, fingerprint.weights_id)
        root = arguments.cache if name == "float16" else arguments.folder
        store = FeatureStore(root, fingerprint, codec)
        transcode(source, store)
        if not any(row["codec"] == codec.name and "encode" in row for row in rows):
            rows.append({"codec": codec.name} | size(store) | speed(source, codec))
        for seed in arguments.seeds if arguments.train else []:
            if not any((row["codec"], row.get("seed")) == (codec.name, seed) for row in rows):
                data, corpora = load(arguments.data, root, "smollm2-135m", name, line)
                fold = next(folds(data.documents, corpora, "in-domain", seed))
                recipe = replace(
                    RECIPES[arguments.recipe], seed=seed, epochs=arguments.epochs, precision=training_precision()
                )
                rows.append(
                    {"codec": codec.name, "seed": seed} | judge(data, fold, pawn_scores(data, fold, recipe, line))
                )
        write_bytes(arguments.output, (json.dumps(rows, indent=1) + "\n").encode())
    print(table(rows))


def transcode(source: Path, store: FeatureStore) -> None:
    """Write every document of a float16 folder into a store that lacks it, shard by shard."""
    for shard in shards_in(source):
        if missing := [document for document in read_shard(shard) if document.key not in store]:
            store.write(missing)


def size(store: FeatureStore) -> dict[str, float]:
    """Bytes a token: of the hidden states, and of all that is on disk."""
    hidden = total = tokens = 0
    for shard in shards_in(store.folder):
        with open_shard(shard) as file:
            table = file.read(columns=["n_tokens", "hidden"])
        tokens += sum(table["n_tokens"].to_pylist())
        hidden += sum(len(value.as_buffer()) for value in table["hidden"])
        total += shard.stat().st_size
    return {"hidden bytes": hidden / tokens, "all bytes": total / tokens}


def speed(source: Path, codec: Codec, shards: int = 4) -> dict[str, float]:
    """GB of float16 hidden states encoded and decoded in a second, best of three."""
    hidden = [document.hidden for shard in islice(shards_in(source), shards) for document in read_shard(shard)]
    size = hidden[0].shape[1]
    gigabytes = sum(states.nbytes for states in hidden) / 1e9
    rates: dict[str, list[float]] = {"encode": [], "decode": []}
    for _ in range(3):
        start = time.perf_counter()
        encoded = [codec.encode(states) for states in hidden]
        middle = time.perf_counter()
        for data in encoded:
            np.array(codec.decode(memoryview(data), size))  # a copy, so that a view is not called a decoding
        rates["encode"].append(gigabytes / (middle - start))
        rates["decode"].append(gigabytes / (time.perf_counter() - middle))
    return {name: max(values) for name, values in rates.items()}


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a line a codec; bytes are those of a token."""
    lines = [
        "| codec | hidden bytes | all bytes | encode GB/s | decode GB/s | AUROC | TPR at 1% FPR | trainings |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in (row for row in rows if "encode" in row):
        own = [other for other in rows if other["codec"] == row["codec"] and "auroc" in other]
        quality = f"{mean(o['auroc'] for o in own):.4f} | {mean(o['tpr@1%'] for o in own):.3f}" if own else "- | -"
        lines.append(
            f"| {row['codec']} | {row['hidden bytes']:.0f} | {row['all bytes']:.0f} | {row['encode']:.2f} | "
            f"{row['decode']:.2f} | {quality} | {len(own)} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
