"""How many human texts of a kind that nobody trained on are accused: the docstrings of Python's standard library.

    python -m benchmarks.docstrings --detector pawn-smollm2-135m --cache CACHE

They are on every machine, no detector learnt from them, and no recipe was chosen by them. Shares have 95% intervals.
"""

import argparse
import inspect
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from benchmarks.model_card import band_names, share
from detect.calibration import band_of
from pipelines.demo import docstrings, modules
from pipelines.scoring import Scorer, ScoringSettings
from pipelines.training_figures import FPRS

MIN_WORDS = 40
DOCTEST = ">>>"


def main() -> None:
    """Parse, score, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", default="pawn-smollm2-135m", help="name or folder; calibrated")
    parser.add_argument("--cache", type=Path, help="where features are kept")
    arguments = parser.parse_args()
    scorer = Scorer.load(ScoringSettings(detector=arguments.detector, cache=arguments.cache), progress=print)
    print(table(scorer.score(sorted(set(long_docstrings(Path(sysconfig.get_paths()["stdlib"])))))))


def long_docstrings(stdlib: Path) -> Iterator[str]:
    """Docstrings of at least `MIN_WORDS` words, without those that hold code."""
    for path in modules(stdlib):
        for docstring in docstrings(path):
            if len(docstring.split()) >= MIN_WORDS and DOCTEST not in docstring:
                yield inspect.cleandoc(docstring)


def table(scored: pl.DataFrame) -> str:
    """Markdown: a line a band of length, and one for all."""
    judged = scored.filter(pl.col("status") == "ok")
    lines = [
        f"| tokens | texts | {' | '.join(f'accused at {fpr:.0%}' for fpr in FPRS)} |",
        f"|---|---|{'---|' * len(FPRS)}",
    ]
    bands = band_of(judged["n_tokens"].to_numpy())
    chosen = [(name, bands == band) for band, name in enumerate(band_names())]
    for name, own in [*chosen, ("all", bands >= 0)]:
        if own.any():
            p_values = judged["p_value"].to_numpy()[own]
            cells = [share(int((p_values <= fpr).sum()), len(p_values)) for fpr in FPRS]
            lines.append(f"| {name} | {len(p_values):,} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
