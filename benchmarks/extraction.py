"""How fast texts become features, against the machine's own limit and against a plain loop of transformers.

    python -m benchmarks.extraction --data a.parquet --documents 100
    python -m benchmarks.extraction --data a.parquet --detectzoo /path/to/its/python

Everything is measured in one run, on the same texts, one variant after the other and all of them `--rounds` times;
the best round of each is reported, since what disturbs a machine only ever makes it slower.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch.nn import functional

from cache.codec_catalog import AUTO, codec_named
from cache.store import FeatureStore
from features.backbone import Backbone, native_dtype
from features.documents import Document, Status, canonical_text
from features.errors import BackboneError
from features.extractor import HEAD_ROWS, Extractor
from features.registry import INT8, resolve
from features.token_features import METRIC_NAMES, TokenFeatures
from pipelines.corpora import Row
from pipelines.extraction import extract_corpus
from pipelines.progress import ProgressLine

EXTRACTION = "pawn extract, to Parquet"
EXTRACTION8 = f"pawn extract --backbone NAME{INT8}, to Parquet"
PADDED_BATCH = 32
LIMIT_ROWS = 2048
"""Tokens at a time in the measurement of matrix products: the fastest of 512 to 8,192."""


def main() -> None:
    """Parse, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="Parquet with a column text")
    parser.add_argument("--documents", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--backbone", default="smollm2-135m")
    parser.add_argument("--detectzoo", type=Path, help="python of an environment that has detectzoo")
    arguments = parser.parse_args()
    files = resolve(arguments.backbone, progress=ProgressLine().say)
    frame = pl.read_parquet(arguments.data, columns=["text"]).unique(maintain_order=True)
    texts = frame["text"].sample(arguments.documents, seed=0).to_list()
    ours = Extractor(Backbone.load(files))
    tokens = sum(len(encoding.token_ids) for encoding in ours.encode(texts))
    print(f"{len(texts)} documents, {tokens:,} tokens, {torch.get_num_threads()} threads, {ours.backbone.dtype}")
    variants: dict[str, Callable[[], object]] = {EXTRACTION: partial(to_parquet, ours, texts)}
    if (rounded := in_int8(arguments.backbone)) is not None:
        variants[EXTRACTION8] = partial(to_parquet, rounded, texts)
    for dtype in dict.fromkeys([native_dtype(str(ours.backbone.device)), torch.float32]):
        loop = PlainLoop(files.path, dtype, ours.max_length)
        variants[f"plain loop, one text at a time, {dtype}"] = partial(loop.each, texts)
        variants[f"plain loop, batches of {PADDED_BATCH} in file order, {dtype}"] = partial(loop.padded, texts)
    seconds = {name: float("inf") for name in variants}
    limit = 0.0
    for _ in range(arguments.rounds):
        limit = max(limit, matmul_limit(ours))
        for name, run in variants.items():
            start = time.perf_counter()
            run()
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    rates = {"matrix products alone, at this model's shapes": limit}
    rates |= {name: tokens / value for name, value in seconds.items()}
    for dtype in DETECTZOO_DTYPES if arguments.detectzoo else []:
        seconds_there = detectzoo_seconds(arguments.detectzoo, files.path, dtype, texts)
        rates[f"detectzoo Fast-DetectGPT, {dtype}"] = tokens / seconds_there
    print(table(rates))
    exact = features(Extractor(Backbone.load(files, dtype=torch.float32)), texts)
    for extractor in (ours, rounded):
        if extractor is not None:
            print(errors(exact, features(extractor, texts), extractor.fingerprint.dtype))


@torch.inference_mode()
def matmul_limit(extractor: Extractor) -> float:
    """Tokens a second if nothing but the model's own matrix products were done, one after the other, on all cores."""
    backbone = extractor.backbone
    weights = [module.weight for module in backbone.model.modules() if isinstance(module, torch.nn.Linear)]
    states = {size: torch.randn(LIMIT_ROWS, size) for size in {weight.shape[1] for weight in weights}}
    states = {size: x.to(backbone.device, backbone.dtype) for size, x in states.items()}
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        for weight in weights:
            step = HEAD_ROWS if weight.shape[0] > 16 * weight.shape[1] else LIMIT_ROWS
            for low in range(0, LIMIT_ROWS, step):
                functional.linear(states[weight.shape[1]][low : low + step], weight)
        if backbone.device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return LIMIT_ROWS / best


def to_parquet(extractor: Extractor, texts: list[str]) -> None:
    """What `pawn extract` does: tokenise, compute, write shards."""
    rows = (Row(Document(id=str(i), text=text), Status.OK, {}) for i, text in enumerate(texts))
    codec = codec_named(AUTO, extractor.fingerprint.weights_id)
    with tempfile.TemporaryDirectory() as folder:
        extract_corpus(rows, extractor, FeatureStore(Path(folder), extractor.fingerprint, codec))


def in_int8(name: str) -> Extractor | None:
    """The backbone in eight-bit integers, where model and processor allow it."""
    try:
        return Extractor(Backbone.load(resolve(f"{name}{INT8}")))
    except BackboneError as error:
        print(error)
        return None


def features(extractor: Extractor, texts: list[str]) -> list[TokenFeatures]:
    """Of each text, in order."""
    return extractor.extract([str(place) for place in range(len(texts))], extractor.encode(texts))


def errors(exact: list[TokenFeatures], found: list[TokenFeatures], dtype: str) -> str:
    """How far features are from those in float32: root mean squares, of metrics in nats."""
    column = METRIC_NAMES.index("log_prob")
    pairs = [(one.metrics[:, column], other.metrics[:, column]) for one, other in zip(exact, found, strict=True)]
    of_tokens = np.concatenate([other - one for one, other in pairs])
    of_texts = np.array([other.mean() - one.mean() for one, other in pairs])
    states, others = (np.concatenate([document.hidden for document in documents]) for documents in (exact, found))
    relative = np.linalg.norm((others - states).astype(float)) / np.linalg.norm((states - states.mean(0)).astype(float))
    return (
        f"{dtype} against float32: log-probability of a token {np.sqrt((of_tokens**2).mean()):.4f}, "
        f"its mean over a text {np.sqrt((of_texts**2).mean()):.4f}, hidden states {relative:.1%}"
    )


class PlainLoop:
    """What one writes first: tokenizer, model, full logits, the same metrics; nothing is kept."""

    def __init__(self, path: Path, dtype: torch.dtype, max_length: int) -> None:
        import transformers

        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=dtype)
        self.model = model.to(self.device).eval()
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(path)
        self.tokenizer.pad_token = self.tokenizer.pad_token or self.tokenizer.eos_token
        self.max_length = max_length

    @torch.inference_mode()
    def each(self, texts: list[str]) -> None:
        """One text at a time."""
        for text in texts:
            self._metrics([canonical_text(text)])

    @torch.inference_mode()
    def padded(self, texts: list[str]) -> None:
        """Batches in the order of the file, padded to their longest text."""
        for start in range(0, len(texts), PADDED_BATCH):
            self._metrics([canonical_text(text) for text in texts[start : start + PADDED_BATCH]])

    def _metrics(self, texts: list[str]) -> None:
        batch = self.tokenizer(
            texts, return_tensors="pt", padding=len(texts) > 1, truncation=True, max_length=self.max_length
        ).to(self.device)
        output = self.model(**batch, output_hidden_states=True, use_cache=False)
        targets = batch["input_ids"][:, 1:]
        for logits, ids, mask in zip(output.logits[:, :-1], targets, batch["attention_mask"][:, 1:], strict=True):
            plain_metrics(logits[mask.bool()], ids[mask.bool()])


def plain_metrics(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The six metrics as their definitions read: (rows, vocab), (rows,) -> (rows, 6)."""
    log_probs = logits.float().log_softmax(-1)
    probs = log_probs.exp()
    target = log_probs.gather(-1, targets[:, None])
    entropy = -(probs * log_probs).sum(-1)
    likelier = log_probs > target
    variance = (probs * (log_probs + entropy[:, None]) ** 2).sum(-1)
    rank, mass = likelier.sum(-1).log1p(), (probs * likelier).sum(-1)
    return torch.stack([target[:, 0], entropy, log_probs.amax(-1), rank, mass, variance], -1)


DETECTZOO_DTYPES = (torch.bfloat16, torch.float32)
DETECTZOO = """
import json, sys, time, types
for part in ("image", "audio", "video"):  # what it imports beside text needs builds that may not fit
    sys.modules["detectzoo.detectors." + part] = types.ModuleType(part)
from detectzoo import load_detector
texts = json.load(open(sys.argv[2]))

detector = load_detector("fast_detectgpt", model_name=sys.argv[1], reference_model_name=sys.argv[1], device="cpu")
detector.predict(texts[0])
start = time.perf_counter()
for text in texts:
    detector.predict(text)
print(time.perf_counter() - start)
"""


def detectzoo_seconds(python: Path, model: Path, dtype: torch.dtype, texts: list[str]) -> float:
    """Seconds that another program's Fast-DetectGPT takes for the same texts on the same model, loading left out.

    It computes in the dtype that the weights have on disk: it gets a copy of them.
    """
    import transformers

    with tempfile.TemporaryDirectory() as folder:
        copied: Any = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=dtype)
        copied.save_pretrained(folder)
        transformers.AutoTokenizer.from_pretrained(model).save_pretrained(folder)
        file = Path(folder) / "texts.json"
        file.write_text(json.dumps(texts))
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
        command = [str(python), "-c", DETECTZOO, folder, str(file)]
        found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if found.returncode:
        sys.exit(found.stderr)
    return float(found.stdout.split()[-1])


def table(rates: dict[str, float]) -> str:
    """Markdown: tokens a second, and how many times as fast extraction is, as it comes and in eight-bit integers."""
    ours = {"extraction is": rates[EXTRACTION]}
    if EXTRACTION8 in rates:
        ours[f"with {INT8}"] = rates[EXTRACTION8]
    lines = [f"| what | tokens/s | {' | '.join(ours)} |", f"|---|---|{'---|' * len(ours)}"]
    for name, rate in rates.items():
        lines.append(f"| {name} | {rate:,.0f} | {' | '.join(f'{own / rate:.2f} x' for own in ours.values())} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
