"""What the measures of fluency of `pawn redteam` say of its runs' texts, and of texts that are rubbish by making.

    python -m benchmarks.fluency RUN...

RUN is a folder of `pawn redteam`; the first gives the human continuations, those of the untuned generator and the
prompts. Rubbish: words of both displaced, more and more of them, and texts that the untuned generator draws hotter than
the runs did.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from detect.adversarial.generation import SamplingSettings, sample
from detect.adversarial.prompts import Prompt
from detect.adversarial.quality import MeaningEncoder, disordered, mean_surprisal, word_order
from detect.catalog import DEFAULT_BACKBONE
from features.backbone import Backbone
from features.documents import Document
from features.extractor import DEFAULT_MAX_LENGTH
from features.registry import resolve

DISPLACED = {"human": (0.1, 0.25, 0.5, 1.0), "before": (0.15, 0.25, 0.5)}
TEMPERATURES = (1.0, 1.25)
SEED = 7


def main() -> None:
    """Parse, measure, print a line a set of texts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    parser.add_argument("--generator", default=DEFAULT_BACKBONE)
    arguments = parser.parse_args()
    reference, encoder = Backbone.load(resolve(arguments.generator)), MeaningEncoder.load()
    print("| texts | perplexity | surprisal saved by word order | likeness of halves |")
    print("|---|---|---|---|")
    for name, prompts, texts in text_sets(arguments.runs, reference):
        surprisal = mean_surprisal(reference, joined(prompts, texts), prompts)
        shuffled = [disordered(text, seed) for seed, text in enumerate(texts)]
        order = word_order(surprisal, mean_surprisal(reference, joined(prompts, shuffled), prompts))
        print(
            f"| {name} | {np.exp(surprisal):.1f} | {order:.3f} | {encoder.coherence(texts):.3f} |",
            flush=True,
        )


def text_sets(runs: Sequence[Path], reference: Backbone) -> Iterator[tuple[str, list[str], list[str]]]:
    """Name, prompts and continuations of each set."""
    prompts = column(runs[0], "human", "prompt")
    usual = {name: column(runs[0], name, "text") for name in DISPLACED}
    for name, texts in usual.items():
        yield name, prompts, texts
    for run in runs:
        yield f"after, {run.name}", column(run, "after", "prompt"), column(run, "after", "text")
    for name, shares in DISPLACED.items():
        for share in shares:
            changed = [displaced(text, share, SEED + number) for number, text in enumerate(usual[name])]
            yield f"{name}, {share:.0%} of the words displaced", prompts, changed
    for temperature in TEMPERATURES:
        settings = SamplingSettings(temperature=temperature)
        drawn = sample(
            reference.model, reference.tokenizer, [as_prompt(text, reference) for text in prompts], settings, SEED
        )
        yield f"before, drawn at temperature {temperature:g}", prompts, [text.text for text in drawn]


def column(run: Path, who: str, name: str) -> list[str]:
    """A column of a run's held-out texts."""
    found: list[str] = pl.read_parquet(run / "texts" / f"heldout-{who}.parquet", columns=[name])[name].to_list()
    return found


def joined(prompts: Sequence[str], texts: Sequence[str]) -> list[str]:
    """Prompts with their continuations."""
    return [f"{prompt} {text}" for prompt, text in zip(prompts, texts, strict=True)]


def as_prompt(text: str, reference: Backbone) -> Prompt:
    """A prompt to go on with; how its writer went on does not matter here."""
    ids = tuple(int(token) for token in reference.encode([text], DEFAULT_MAX_LENGTH)[0].token_ids)
    return Prompt(Document(id="", text=text), text, ids, "", ())


def displaced(text: str, share: float, seed: int) -> str:
    """A text with so many of its words, drawn at random, in each other's places."""
    rng = np.random.default_rng(seed)
    words = np.array(text.split(), dtype=object)
    places = rng.permutation(len(words))[: round(share * len(words))]
    words[np.sort(places)] = words[places]
    return " ".join(words)


if __name__ == "__main__":
    main()
