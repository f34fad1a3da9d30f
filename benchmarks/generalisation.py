"""How detectors do on what their training never held: leave one corpus, domain or generator out.

    python -m benchmarks.generalisation --data a.parquet b.parquet --cache CACHE -o results.json

Each finished fold is written to the output at once, and repeating the command continues. `--table` prints what
an output file holds.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import polars as pl

from cache.codec_catalog import AUTO, codec_named
from cache.loader import CachedCorpus
from cache.store import FeatureStore
from detect.calibration import Calibration
from detect.pawn_scoring import corpus_scores
from detect.protocol import write_bytes
from detect.trained import scores_of
from detect.training import TrainingConfig, fit_pawn, new_network, training_precision
from detect.zero_shot import ZERO_SHOT
from features.backbone import Backbone
from features.extractor import Extractor
from features.registry import resolve
from pipelines.corpora import Corpus, CorpusOptions
from pipelines.progress import ProgressLine, RowsLine, TrainingLine
from pipelines.protocols import Fold, folds
from pipelines.training_data import TrainingData, load_training_data
from pipelines.training_figures import FPRS, figures

PROTOCOLS = ("in-domain", "corpus", "domain", "generator")
RECIPES = {
    "paper": TrainingConfig(crop_probability=0.0, likelihood_weight=0.0),
    "crops": TrainingConfig(likelihood_weight=0.0),
    "crops+likelihood": TrainingConfig(),
    "crops, no hidden": TrainingConfig(likelihood_weight=0.0, network={"use_hidden": False}),
}
"""PAWN as published; with random prefixes; with mean log-likelihood added to the logit; without hidden states."""


def main() -> None:
    """Parse, run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", help="labelled corpora, one a file")
    parser.add_argument("--cache", type=Path, help="feature cache; filled where it lacks features")
    parser.add_argument("-o", "--output", type=Path, required=True, help="JSON of finished folds")
    parser.add_argument("--protocols", nargs="+", default=PROTOCOLS, choices=PROTOCOLS)
    parser.add_argument("--recipes", nargs="*", default=["crops+likelihood"], choices=list(RECIPES))
    parser.add_argument("--epochs", type=int, default=TrainingConfig().epochs)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scores", type=Path, help="folder for the scores of each fold, one Parquet file each")
    parser.add_argument("--backbone", default="smollm2-135m")
    parser.add_argument("--codec", default=AUTO, help="form of the cached hidden states")
    parser.add_argument("--table", action="store_true", help="only print what the output holds")
    arguments = parser.parse_args()
    done = json.loads(arguments.output.read_text()) if arguments.output.is_file() else []
    if not arguments.table:
        if not arguments.data or not arguments.cache:
            parser.error("--data and --cache are needed to run folds")
        run(arguments, done)
    print(table(done))


def run(arguments: argparse.Namespace, done: list[dict[str, Any]]) -> None:
    """Every fold of every protocol that `done` lacks; each is added to it and written out."""
    line = ProgressLine()
    data, corpora = load(arguments.data, arguments.cache, arguments.backbone, arguments.codec, line)
    zero_shot = {name: zero_shot_scores(data, name) for name in ZERO_SHOT}
    for protocol in arguments.protocols:
        for fold in folds(data.documents, corpora, protocol, arguments.seed):
            for name in [*ZERO_SHOT, *arguments.recipes]:
                place = {"protocol": protocol, "held_out": fold.held_out, "detector": name, "seed": arguments.seed}
                if any(place.items() <= row.items() for row in done):
                    continue
                config = RECIPES.get(name)
                if config is None:
                    row = judge(data, fold, zero_shot[name])
                else:
                    recipe = replace(
                        config, seed=arguments.seed, epochs=arguments.epochs, precision=training_precision()
                    )
                    scores = pawn_scores(data, fold, recipe, line)
                    row = judge(data, fold, scores)
                    if arguments.scores:
                        save_scores(arguments.scores / f"{protocol}-{fold.held_out}-{name}.parquet", data, fold, scores)
                done.append(place | row)
                line.say(json.dumps(done[-1]))
                write_bytes(arguments.output, (json.dumps(done, indent=1) + "\n").encode())


def load(
    files: Sequence[str], cache: Path, backbone: str, codec: str, line: ProgressLine
) -> tuple[TrainingData, list[str]]:
    """Documents with features, each text once, and the corpus (file) that each is from."""
    model = resolve(backbone, progress=line.say)
    extractor = Extractor(Backbone.load(model))
    store = FeatureStore(cache, extractor.fingerprint, codec_named(codec, model.weights_id))
    found: dict[str, tuple[Any, str]] = {}
    for file in files:
        with Corpus.open([file], CorpusOptions(labelled=True)) as corpus:
            data, _ = load_training_data(corpus, extractor, store, corpus.count_rows(), RowsLine(line))
        for key, document in zip(data.corpus.keys, data.documents, strict=True):
            found.setdefault(key, (document, Path(file).stem))
    documents = [document for document, _ in found.values()]
    corpora = [corpus for _, corpus in found.values()]
    return TrainingData(CachedCorpus(store, list(found)), documents, 0, 0), corpora


def zero_shot_scores(data: TrainingData, name: str) -> np.ndarray:
    """Scores of every document by a detector that learns nothing."""
    return scores_of(ZERO_SHOT[name](), data.corpus)


def pawn_scores(data: TrainingData, fold: Fold, config: TrainingConfig, line: ProgressLine) -> np.ndarray:
    """Scores of the documents of a fold by a PAWN trained on it; NaN for those it learnt from."""
    _, first = next(data.corpus.subset([0]).documents())
    network = new_network(config, hidden_size=first.hidden.shape[1])
    fit_pawn(network, data.part(fold.train), data.part(fold.validation), config, TrainingLine(line))
    scores = np.full(len(data.documents), np.nan)
    judged = np.concatenate([fold.calibration, fold.test])
    scores[judged] = corpus_scores(network, data.corpus.subset(judged.tolist()))
    return scores


def save_scores(path: Path, data: TrainingData, fold: Fold, scores: np.ndarray) -> None:
    """Key, label, part and score of the documents that a fold judged, for a closer look."""
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = {"calibration": fold.calibration, "test": fold.test}
    chosen = np.concatenate(list(parts.values()))
    pl.DataFrame(
        {
            "key": [data.corpus.keys[index] for index in chosen],
            "label": data.labels[chosen],
            "part": [part for part, members in parts.items() for _ in members],
            "score": scores[chosen],
        }
    ).write_parquet(path)


def judge(data: TrainingData, fold: Fold, scores: np.ndarray) -> dict[str, float]:
    """Figures on the test texts, thresholds fixed on the human texts of the calibration part."""
    human = fold.calibration[data.labels[fold.calibration] == 0]
    return figures(data.labels[fold.test], scores[fold.test], Calibration(scores[human], {}))


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: one line a fold and detector, then the mean of each protocol."""
    columns = ["auroc", *(f"{kind}@{fpr:.0%}" for fpr in FPRS for kind in ("tpr", "real fpr", "real tpr"))]
    lines = [
        f"| left out | detector | human / machine | {' | '.join(columns)} |",
        f"|---|---|---|{'---|' * len(columns)}",
    ]
    for protocol in dict.fromkeys(row["protocol"] for row in rows):
        chosen = [row for row in rows if row["protocol"] == protocol]
        for row in chosen:
            figures = " | ".join(f"{row[column]:.3f}" for column in columns)
            lines.append(
                f"| {protocol}: {row['held_out']} | {row['detector']} | {row['human']} / {row['machine']} | {figures} |"
            )
        for name in dict.fromkeys(row["detector"] for row in chosen):
            own = [row for row in chosen if row["detector"] == name]
            figures = " | ".join(f"**{mean(row[column] for row in own):.3f}**" for column in columns)
            lines.append(f"| **{protocol}: mean** | **{name}** |  | {figures} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
