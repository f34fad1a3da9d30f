"""Detectors that read texts themselves, trained and judged on the same corpora (in-domain split).

    python -m benchmarks.text_detectors tfidf --data a.parquet b.parquet
    python -m benchmarks.text_detectors encoder --data a.parquet --epochs 1 --max-length 128 --keep FOLDER
    python -m benchmarks.text_detectors lora --data a.parquet --train-texts 400 --epochs 2

Prints the figures as one line of JSON. `--keep` keeps the training, so that repeating the command continues it.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from detect.calibration import Calibration
from detect.finetuned import FineTunedEncoder
from detect.finetuning import Checkpointing, FineTuningConfig
from detect.lora import LORA_TRAINING, LabelSupervisedLM
from detect.noise import NoiseConfig
from detect.protocol import LabelledTexts
from detect.splits import split_groups
from detect.tfidf import TfidfDetector
from features.documents import Document, Status, text_key
from pipelines.corpora import Corpus, CorpusOptions
from pipelines.fitting import SPLIT
from pipelines.progress import ProgressLine, TrainingLine
from pipelines.training_figures import figures


def main() -> None:
    """Parse, train, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("detector", choices=["tfidf", "encoder", "lora"])
    parser.add_argument("--data", nargs="+", required=True, help="labelled corpora")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--base", help="model to fine-tune; default: the detector's own")
    parser.add_argument("--train-texts", type=int, help="learn from at most so many texts, drawn at random")
    parser.add_argument("--judged-texts", type=int, help="take at most so many texts of each other part")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, help="default: the detector's own")
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--noise", action="store_true", help="noise-augmented fine-tuning")
    parser.add_argument("--keep", type=Path, help="folder for the checkpoint and the trained detector")
    arguments = parser.parse_args()
    documents = load(arguments.data)
    parts = np.array(split_groups(documents, SPLIT, arguments.seed))
    rng = np.random.default_rng(arguments.seed)
    chosen = {}
    for part in SPLIT:
        limit = arguments.train_texts if part == "train" else arguments.judged_texts
        chosen[part] = texts_of(documents, rng.permutation(np.flatnonzero(parts == part))[:limit])
    start = time.monotonic()
    detector = trained(arguments, chosen["train"], chosen["validation"])
    seconds = time.monotonic() - start
    if arguments.keep:
        detector.save(arguments.keep / "detector")
    held_out, test = chosen["calibration"], chosen["test"]
    human = [text for text, label in zip(held_out.texts, held_out.labels, strict=True) if label == 0]
    calibration = Calibration(detector.score(human), {})
    row = {"detector": arguments.detector, "seed": arguments.seed, "seconds": round(seconds)}
    row |= {part: len(texts.texts) for part, texts in chosen.items()}
    print(json.dumps(row | figures(test.labels, detector.score(test.texts), calibration)))


def trained(arguments: argparse.Namespace, train: LabelledTexts, validation: LabelledTexts) -> Any:
    """A detector that learnt from the texts."""
    line = ProgressLine(shown=True)
    if arguments.detector == "tfidf":
        return TfidfDetector("tfidf").fit(train, validation)
    kind: Any = FineTunedEncoder if arguments.detector == "encoder" else LabelSupervisedLM
    base = {"base": arguments.base} if arguments.base else {}
    detector = kind.new(arguments.detector, max_length=arguments.max_length, seed=arguments.seed, say=line.say, **base)
    config = FineTuningConfig() if arguments.detector == "encoder" else LORA_TRAINING
    config = replace(
        config,
        epochs=arguments.epochs,
        seed=arguments.seed,
        learning_rate=arguments.learning_rate or config.learning_rate,
        noise=NoiseConfig() if arguments.noise else None,
    )
    checkpointing = Checkpointing(arguments.keep / "training.safetensors", 50) if arguments.keep else None
    return detector.fit(train, validation, config, TrainingLine(line), checkpointing)


def load(files: Sequence[str]) -> list[Document]:
    """Scorable labelled documents, each text once, none with both labels."""
    found: dict[str, Document] = {}
    conflicting: set[str] = set()
    with Corpus.open(files, CorpusOptions(labelled=True)) as corpus:
        for row in corpus.rows():
            if row.status is Status.OK:
                key = text_key(row.document.text)
                if found.setdefault(key, row.document).label != row.document.label:
                    conflicting.add(key)
    return [document for key, document in found.items() if key not in conflicting]


def texts_of(documents: Sequence[Document], indices: np.ndarray) -> LabelledTexts:
    """Some of the documents."""
    return LabelledTexts([documents[i].text for i in indices], np.array([documents[i].label for i in indices]))


if __name__ == "__main__":
    main()
