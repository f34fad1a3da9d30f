"""Figures of folds -> their means over the folds of a protocol and over seeds, with confidence intervals.

Shapes: `folds`, `resamples` (the first is the sample itself), `figures` (of `figure_names`).
"""

from collections.abc import Sequence

import numpy as np
import polars as pl

from pipelines.bootstrap import draw_sources, percentiles
from pipelines.figures import FPRS, FixedRules, figure_names, resampled_figures, texts_of_rate, widened, with_sample

_PAIR = ["detector", "protocol"]
_ENDS = ("_low", "_high")


def means_table(figures: pl.DataFrame) -> pl.DataFrame:
    """Mean of each figure over the folds of a protocol, for each detector: of "all", not of slices.

    First over `held_out` for each seed, then over the seeds; `_sd` is the standard deviation between seeds, null for
    one seed. A figure that some folds lack is the mean of the others, and the note says of how many.

    Args:
        figures: as `figures_table` gives.

    Returns:
        One row for each detector and protocol: `folds`, `seeds`, each figure with `_sd`, and `note`.
    """
    names = [name for name in figures.columns if f"{name}_low" in figures.columns]
    whole = figures.filter(pl.col("slice") == "all")
    by_seed = whole.group_by([*_PAIR, "seed"], maintain_order=True).agg(pl.col(names).mean())
    columns = [column for name in names for column in (pl.col(name).mean(), pl.col(name).std().alias(f"{name}_sd"))]
    counts = whole.group_by(_PAIR, maintain_order=True).agg(
        folds=pl.col("held_out").n_unique(), seeds=pl.col("seed").n_unique()
    )
    notes = whole.group_by(_PAIR).agg(note=pl.concat_str(map(_lacking, names), separator="; ", ignore_nulls=True))
    means = by_seed.group_by(_PAIR).agg(columns)
    return counts.join(means, on=_PAIR, maintain_order="left").join(notes, on=_PAIR, maintain_order="left")


def _lacking(name: str) -> pl.Expr:
    """How many folds a figure is the mean of, where some lack it; else null."""
    some = pl.col(name).null_count().is_between(1, pl.len() - 1)
    return pl.when(some).then(pl.format("{} over {} of {} folds", pl.lit(name), pl.col(name).count(), pl.len()))


def means_with_intervals(
    figures: pl.DataFrame,
    judgements: pl.DataFrame,
    *,
    fprs: Sequence[float] = FPRS,
    resamples: int = 1000,
    seed: int = 0,
) -> pl.DataFrame:
    """`means_table` with a 95% interval of each mean, `_low` and `_high` (null where it cannot be had).

    The sources of all folds and seeds of a detector and protocol are drawn together, and each draw gives a mean: folds
    without a source in common vary apart, and what folds share (the lengths of a curve have the same texts, left-out
    generators the same human ones) varies in all of them at once. Like the intervals of folds, these leave aside what
    another training would give; `_sd` shows some of that.

    Args:
        figures: as `figures_table` gives for the judgements.
        judgements: rows of `JUDGEMENT_SCHEMA`.
        fprs: rates of the thresholds, as in the figures.
        resamples: draws that an interval is made of.
        seed: of the draws.
    """
    names = figure_names(fprs)
    whole = figures.filter(pl.col("slice") == "all").partition_by(_PAIR, as_dict=True)
    rows = []
    for place, own in judgements.partition_by(_PAIR, as_dict=True, maintain_order=True).items():
        row = dict(zip(_PAIR, place, strict=True))
        if len(folds := whole[place]) == 1:  # its own interval, which is known
            row |= folds.select(f"{name}{end}" for end in _ENDS for name in names).row(0, named=True)
        elif (folds["sources"] > 1).all():
            bounds = _mean_bounds(own, fprs, resamples, seed)
            for end, values in zip(_ENDS, bounds.tolist(), strict=True):
                row |= {f"{name}{end}": value for name, value in zip(names, values, strict=True)}
        else:
            row["told"] = "no intervals: a fold of one source"
        rows.append(row)
    schema: dict[str, pl.DataType] = dict.fromkeys([*_PAIR, "told"], pl.String())
    schema |= dict.fromkeys([f"{name}{end}" for name in names for end in _ENDS], pl.Float64())
    found = pl.DataFrame(rows, schema=schema).with_columns(pl.col(pl.Float64).fill_nan(None))
    means = means_table(figures).join(found, on=_PAIR, maintain_order="left")
    note = pl.concat_str(pl.col("note").replace("", None), "told", separator="; ", ignore_nulls=True)
    order = [f"{name}{end}" for name in names for end in ("", "_low", "_high", "_sd")]
    return means.select(*_PAIR, "folds", "seeds", *order, note=note)


def _mean_bounds(judgements: pl.DataFrame, fprs: Sequence[float], resamples: int, seed: int) -> np.ndarray:
    """Bounds of the mean of each figure over the folds and seeds of one detector and protocol: (2, figures)."""
    test = judgements.filter(pl.col("part") == "test")
    numbers = test["source"].unique().sort().to_numpy()
    counts = with_sample(draw_sources(len(numbers), resamples, seed))
    by_seed: dict[int, list[np.ndarray]] = {}
    for (_, fold_seed), fold in judgements.partition_by("held_out", "seed", as_dict=True, maintain_order=True).items():
        rules = FixedRules.of(fold.filter(pl.col("part") == "calibration"), fprs)
        texts = fold.filter(pl.col("part") == "test")
        own, source = np.unique(texts["source"].to_numpy(), return_inverse=True)
        table = resampled_figures(texts, rules, source, counts[:, np.searchsorted(numbers, own)])
        by_seed.setdefault(int(fold_seed), []).append(_without_bias(table))
    drawn = _mean_of([_mean_of(tables) for tables in by_seed.values()])
    low, high = percentiles(drawn[1:])
    low[-1] = np.maximum(0.0, low[-1])  # NaN stays NaN
    low[np.isnan(drawn[0])] = high[np.isnan(drawn[0])] = np.nan
    machine, source = test["label"].to_numpy() == 1, test["source"].to_numpy()
    for index, name in enumerate(figure_names(fprs)):
        if (of := texts_of_rate(name, machine)) is not None:
            low[index], high[index] = widened(drawn[0, index], low[index], high[index], source[of])
    return np.stack([low, high])


def _without_bias(table: np.ndarray) -> np.ndarray:
    """A fold's figures with the ECE, the last, less the bias that resampling adds to it; see `figures_table`."""
    drawn = table[1:, -1]
    known = drawn[~np.isnan(drawn)]
    if len(known):
        drawn -= known.mean() - table[0, -1]
    return table


def _mean_of(tables: Sequence[np.ndarray]) -> np.ndarray:
    """The mean draw by draw, over those that have the figure in the sample: (resamples, figures).

    NaN in a resample that lacks it in one of those, and where none has it.
    """
    stack = np.stack(tables)  # (tables, resamples, figures)
    having = ~np.isnan(stack[:, 0])  # (tables, figures)
    total = np.where(having[:, None], stack, 0.0).sum(axis=0)
    return np.divide(total, having.sum(axis=0), out=np.full_like(total, np.nan), where=having.any(axis=0))
