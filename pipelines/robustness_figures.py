"""Scores of clean and attacked texts -> what each attack does to each detector, with confidence intervals.

Shapes: `docs` (texts of one attack at one strength), `resamples` (draws of the sources; the first is the sample
itself), `rates` (false-positive rates that thresholds were fixed at).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl

from detect.calibration import Calibration
from pipelines.attack_subjects import CALIBRATION, JUDGED
from pipelines.bootstrap import draw_sources, percentiles, ranking_figures, totals
from pipelines.figures import rate_name, widened

CLEAN = "none"
"""The attack of texts to which nothing was done."""

DEFENCES = {"none": "score", "normalised": "score_normalised"}
"""What is done to every text before it is scored, and the column of the score that it then gets."""

SCORED_SCHEMA: dict[str, pl.DataType] = {
    **dict.fromkeys(("detector", "attack"), pl.String()),
    "strength": pl.Float64(),
    "target": pl.String(),
    **dict.fromkeys(("part", "id"), pl.String()),
    "source": pl.Int64(),
    **dict.fromkeys(("corpus", "domain", "generator"), pl.String()),
    "label": pl.Int8(),
    "queries": pl.Int64(),
    "edit_distance": pl.Float64(),
    "score": pl.Float64(),
    "score_normalised": pl.Float64(),
}
"""One row a text and detector. `part` is "judged", or "calibration" for human texts that fix thresholds; texts with the
same `id` are versions of one document; `target` is the detector that an attack queried; a score is null where there is
none (a text became too short); distance and queries are null where no attack was run."""

CELL = ("detector", "attack", "strength", "target")
"""What a row of the table is about, beside the defence."""


def robustness_figures(fprs: Sequence[float]) -> list[str]:
    """The figures in the order of the table's columns, each followed there by its `_low` and `_high`."""
    rates = [rate_name(fpr) for fpr in fprs]
    return [
        "auroc",
        "auroc_attacked_human",
        *(f"{kind}@{rate}" for rate in rates for kind in ("real_tpr", "real_fpr", "success")),
        "edit_distance",
        "edit_distance_human",
        "queries",
    ]


def robustness_table(
    scored: pl.DataFrame, *, fprs: Sequence[float] = (0.01, 0.05), resamples: int = 1000, seed: int = 0
) -> pl.DataFrame:
    """Every figure of every detector, attack, strength and defence, with 95% intervals by bootstrap over sources.

    - `auroc`: attacked machine texts against clean human ones; `auroc_attacked_human`: against attacked human ones.
    - `real_tpr@x`, `real_fpr@x`: share of attacked machine and of attacked human texts that are flagged, at the
      threshold that the clean calibration texts promise x at.
    - `success@x`: of the machine texts that were flagged clean at that threshold, the share that no longer is.
    - `edit_distance` (machine texts), `edit_distance_human`: mean Levenshtein distance of characters over the length of
      the longer text, 0 to 1; `queries`: mean number of questions to a detector for a machine text.

    Under the defence "normalised" every text, also the clean ones and those of the calibration, was normalised first.
    A text without a score is in no figure; `unscored` counts them. What the calibration part fixed stays fixed in the
    resamples.

    Args:
        scored: rows of `SCORED_SCHEMA`, the clean ones (attack "none") of each detector among them.
        fprs: false-positive rates of the thresholds.
        resamples: draws that an interval is made of.
        seed: of the draws.

    Returns:
        One row for each of `CELL` and `defence`: `humans`, `machines`, `unscored`, each of `robustness_figures` with
        `_low` and `_high` (null where it cannot be had), and `note`, which says why.
    """
    rows = []
    for (detector,), own in scored.partition_by("detector", as_dict=True, maintain_order=True).items():
        for defence, column in DEFENCES.items():
            clean = own.filter(attack=CLEAN).with_columns(score=pl.col(column))
            thresholds, note = _thresholds(clean.filter(part=CALIBRATION), fprs)
            clean = clean.filter(part=JUDGED)
            for place, cell in _cells(own.filter(part=JUDGED).with_columns(score=pl.col(column))):
                before = cell.join(clean.select("id", before="score"), on="id", how="left", maintain_order="left")
                row = {"detector": detector, **place, "defence": defence, "note": note}
                rows.append(row | _figures(before, clean, thresholds, fprs, resamples, seed))
    names = robustness_figures(fprs)
    schema = {name: SCORED_SCHEMA[name] for name in CELL} | {"defence": pl.String()}
    schema |= dict.fromkeys(("humans", "machines", "unscored"), pl.Int64())
    schema |= {f"{name}{end}": pl.Float64() for name in names for end in ("", "_low", "_high")} | {"note": pl.String()}
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(pl.col(pl.Float64).fill_nan(None))


def _cells(judged: pl.DataFrame) -> Iterator[tuple[dict[str, Any], pl.DataFrame]]:
    """Texts of each attack, strength and target, in the order in which they come."""
    by = ["attack", "strength", "target"]
    for place, cell in judged.partition_by(by, as_dict=True, maintain_order=True).items():
        yield dict(zip(by, place, strict=True)), cell


def _thresholds(calibration: pl.DataFrame, fprs: Sequence[float]) -> tuple[np.ndarray, str]:
    """The threshold of each rate, (rates,), NaN where these texts cannot promise it; and a note of those."""
    rule = Calibration(calibration["score"].drop_nulls().to_numpy(), {})
    known = [rule.threshold(fpr) if fpr >= rule.smallest_fpr else np.nan for fpr in fprs]
    missing = [rate_name(fpr) for fpr, threshold in zip(fprs, known, strict=True) if np.isnan(threshold)]
    note = f"no threshold at {', '.join(missing)}: {len(rule.scores)} human calibration texts" if missing else ""
    return np.array(known), note


def _figures(
    cell: pl.DataFrame, clean: pl.DataFrame, thresholds: np.ndarray, fprs: Sequence[float], resamples: int, seed: int
) -> dict[str, Any]:
    """The figures of one row of the table, by name, with bounds and counts."""
    texts = cell.drop_nulls("score")
    clean_human = clean.filter(label=0).drop_nulls("score")
    _, source = np.unique(np.concatenate([texts["source"], clean_human["source"]]), return_inverse=True)
    own, others = source[: len(texts)], source[len(texts) :]
    counts = draw_sources(int(source.max(initial=-1)) + 1, resamples, seed)
    counts = np.concatenate([np.ones((1, counts.shape[1])), counts])  # the sample itself, then the resamples
    machine = texts["label"].to_numpy() == 1
    scores = texts["score"].to_numpy()
    ranking = [
        _auroc(scores[machine], clean_human["score"].to_numpy(), own[machine], others, counts),
        _auroc(scores[machine], scores[~machine], own[machine], own[~machine], counts),
    ]
    fractions = _shares(texts, machine, thresholds, fprs) | _means(texts, machine)
    parts, wholes = (np.column_stack(columns) for columns in zip(*fractions.values(), strict=True))
    with np.errstate(invalid="ignore", divide="ignore"):  # nobody to take a share of: NaN
        table = np.column_stack([*ranking, totals(parts, own, counts) / totals(wholes, own, counts)])
    low, high = percentiles(table[1:]) if counts.shape[1] > 1 else np.full((2, table.shape[1]), np.nan)
    found: dict[str, Any] = {"humans": int((~machine).sum()), "machines": int(machine.sum())}
    found["unscored"] = len(cell) - len(texts)
    for index, name in enumerate(robustness_figures(fprs)):
        value = float(table[0, index])
        bounds = (float("nan"), float("nan")) if np.isnan(value) else (float(low[index]), float(high[index]))
        if "@" in name:
            bounds = widened(value, *bounds, own[fractions[name][1]])
        found |= {name: value, f"{name}_low": bounds[0], f"{name}_high": bounds[1]}
    return found


def _auroc(
    machine: np.ndarray, human: np.ndarray, machine_source: np.ndarray, human_source: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    """AUROC of each resample, (resamples,); NaN where one lacks a class."""
    if not len(machine) or not len(human):
        return np.full(len(counts), np.nan)
    is_machine = np.repeat([True, False], [len(machine), len(human)])
    source = np.concatenate([machine_source, human_source])
    return ranking_figures(is_machine, np.concatenate([machine, human]), source, counts, ())[:, 0]


def _shares(
    texts: pl.DataFrame, machine: np.ndarray, thresholds: np.ndarray, fprs: Sequence[float]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Each share at a threshold by name: which texts count (docs,), and which they are a share of (docs,)."""
    after, before = texts["score"].to_numpy(), texts["before"].to_numpy()
    found = {}
    for fpr, threshold in zip(fprs, thresholds, strict=True):
        flagged, caught = after >= threshold, machine & (before >= threshold)  # nothing is at or above a NaN
        there = ~np.isnan(threshold)
        found[f"real_tpr@{rate_name(fpr)}"] = flagged & machine, machine & there
        found[f"real_fpr@{rate_name(fpr)}"] = flagged & ~machine, ~machine & there
        found[f"success@{rate_name(fpr)}"] = caught & ~flagged, caught
    return found


def _means(texts: pl.DataFrame, machine: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Each mean by name: the values (docs,), 0 where they do not count, and which do (docs,)."""
    found = {}
    for name, column, of in (
        ("edit_distance", "edit_distance", machine),
        ("edit_distance_human", "edit_distance", ~machine),
        ("queries", "queries", machine),
    ):
        known = of & texts[column].is_not_null().to_numpy()
        found[name] = np.where(known, texts[column].fill_null(0).to_numpy(), 0), known
    return found
