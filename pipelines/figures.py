"""Judgements (scores of labelled texts, fold by fold) -> figures with confidence intervals, whole and by slice."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from detect.calibration import Calibration
from detect.measures import equal_mass_bins
from detect.probability import PlattScaling
from features.errors import InputError, UsageError
from pipelines.bootstrap import draw_sources, percentiles, ranking_figures, totals

JUDGEMENT_SCHEMA: dict[str, pl.DataType] = {
    "detector": pl.String(),
    "protocol": pl.String(),
    "held_out": pl.String(),
    "seed": pl.Int64(),
    "part": pl.String(),
    "id": pl.String(),
    "source": pl.Int64(),
    "corpus": pl.String(),
    "domain": pl.String(),
    "generator": pl.String(),
    "attack": pl.String(),
    "label": pl.Int8(),
    "n_tokens": pl.Int32(),
    "score": pl.Float64(),
}
"""One row a judged text. `part` is "calibration" or "test"; documents with the same `source` are not independent."""

OWN_CALIBRATION = "own calibration"
"""The corpus of calibration rows that a detector brought along: they judge by domain and length, as its scores are
judged when it is used. The calibration part of a fold is one set of texts."""

PLACE = ("detector", "protocol", "held_out", "seed")
"""What a fold is named by: each of its figures is about one detector, trained once and judged once."""

FPRS = (0.001, 0.01, 0.05)
DECISION_FPR = 0.01
"""The rate of the calibrated threshold that F1 and accuracy are of."""

SLICES = ("domain", "generator", "attack", "length")
LENGTH_BANDS = {"<64": 0, "64-127": 64, "128-255": 128, "256-511": 256, ">=512": 512}
"""Bands of `n_tokens` and where each begins."""

_MACHINE_SLICES = ("generator", "attack")
_TEXTS_OF_RATE = {"tpr": (True,), "real_tpr": (True,), "real_fpr": (False,), "accuracy": (False, True)}
"""Which texts, machine or not, each figure is a share of; the others are no shares."""


def rate_name(fpr: float) -> str:
    """A rate as column names spell it: 0.001 is "0.1%"."""
    return f"{100 * fpr:.6g}%"


def figure_names(fprs: Sequence[float] = FPRS) -> list[str]:
    """The figures in the order of the table's columns, each followed there by its `_low` and `_high`."""
    rates = [rate_name(fpr) for fpr in fprs]
    names = ["auroc", "average_precision", *(f"tpr@{rate}" for rate in rates)]
    names += [f"{kind}@{rate}" for rate in rates for kind in ("real_fpr", "real_tpr")]
    decided = rate_name(DECISION_FPR)
    return [*names, f"f1@{decided}", f"accuracy@{decided}", "brier", "ece"]


def figures_table(
    judgements: pl.DataFrame,
    *,
    fprs: Sequence[float] = FPRS,
    slices: Sequence[str] = SLICES,
    resamples: int = 1000,
    seed: int = 0,
) -> pl.DataFrame:
    """Every figure of every fold, on all its test texts and on slices of them, with 95% intervals.

    `tpr@x` has its threshold exactly at x on the human texts that it is of; `real_fpr@x` and `real_tpr@x` have it
    fixed at x on the human texts of the calibration part, which also gives the probabilities of `brier` and `ece`
    (Platt scaling). F1 and accuracy are of the calibrated threshold at 1%.

    Intervals are percentiles of resamples of the sources; what the calibration part fixed stays fixed. Where a rate
    is 0 or 1, its far bound is the exact binomial one (Clopper and Pearson 1934) for as many texts as there are
    sources: every resample would agree with it, which proves nothing. Resampling adds noise to the bins of the ECE
    and so raises it; its interval is shifted back by that much.

    A slice of a domain or a length band has both classes from it; one of a generator or an attack has its machine
    texts and all human texts of the same domains.

    Args:
        judgements: rows of `JUDGEMENT_SCHEMA`.
        fprs: rates of the thresholds.
        slices: which of `SLICES` to give besides "all".
        resamples: draws that an interval is made of.
        seed: of the draws.

    Returns:
        One row for each fold and slice: `PLACE`, `slice` (kind), `value`, `humans`, `machines`, `sources`, each of
        `figure_names` with `_low` and `_high` (null where it cannot be had), and `note`, which says why.

    Raises:
        UsageError: for an unknown slice or a rate outside (0, 1).
        InputError: when a column is missing or a score is null, NaN or infinite.
    """
    _check(judgements, fprs, slices)
    names = figure_names(fprs)
    rows = []
    for place, fold in judgements.partition_by(PLACE, as_dict=True, maintain_order=True).items():
        rules = FixedRules.of(fold.filter(pl.col("part") == "calibration"), fprs)
        test = fold.filter(pl.col("part") == "test")
        for kind, value, members in slices_of(test, slices):
            found, notes = _figures(members, rules, resamples, seed)
            row: dict[str, Any] = dict(zip(PLACE, place, strict=True)) | {"slice": kind, "value": value}
            row |= {
                "humans": int((members["label"] == 0).sum()),
                "machines": int((members["label"] == 1).sum()),
                "sources": members["source"].n_unique(),
            }
            for name, (figure, low, high) in zip(names, found, strict=True):
                row |= {name: figure, f"{name}_low": low, f"{name}_high": high}
            rows.append(row | {"note": "; ".join(notes)})
    table = pl.DataFrame(rows, schema=_table_schema(names), orient="row")
    return table.with_columns(pl.col(pl.Float64).fill_nan(None))


def slices_of(test: pl.DataFrame, kinds: Sequence[str]) -> Iterator[tuple[str, str, pl.DataFrame]]:
    """Kind, value and texts of each slice of a test part that holds a text; first "all"."""
    yield "all", "all", test
    band = np.searchsorted(list(LENGTH_BANDS.values()), test["n_tokens"].to_numpy(), side="right") - 1
    test = test.with_columns(length=pl.Series(np.array(list(LENGTH_BANDS))[band]))
    for kind in kinds:
        having = test.filter(label=1) if kind in _MACHINE_SLICES else test
        found = having[kind].drop_nulls().unique().to_list()
        order = list(LENGTH_BANDS) if kind == "length" else sorted(found)
        for value in order:
            if value not in found:
                continue
            chosen = pl.col(kind) == value
            if kind in _MACHINE_SLICES:
                domains = having.filter(chosen)["domain"].unique()
                human = (pl.col("label") == 0) & pl.col("domain").is_in(domains.implode(), nulls_equal=True)
                chosen = human | ((pl.col("label") == 1) & chosen)
            yield kind, value, test.filter(chosen)


@dataclass(frozen=True)
class FixedRules:
    """What the calibration part of a fold decides before any test text is looked at.

    Attributes:
        fprs: the rates.
        calibration: the human scores that fix thresholds; None where there are none.
        platt: scores to probabilities; None where the calibration part lacks a class.
        notes: why something is missing.
    """

    fprs: Sequence[float]
    calibration: Calibration | None
    platt: PlattScaling | None
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, calibration: pl.DataFrame, fprs: Sequence[float]) -> "FixedRules":
        """Fix thresholds on the human texts of a calibration part, and probabilities on both classes."""
        fixed = calibration_of(calibration)
        notes = [
            f"no threshold at {rate_name(fpr)}: {0 if fixed is None else fixed.fewest} human calibration texts"
            for fpr in dict.fromkeys((*fprs, DECISION_FPR))
            if fixed is None or fpr < fixed.smallest_fpr
        ]
        platt = None
        if calibration["label"].n_unique() == 2:
            platt = PlattScaling.fit(calibration["label"].to_numpy(), calibration["score"].to_numpy())
        else:
            notes.append("no probabilities: the calibration part lacks a class")
        return cls(fprs, fixed, platt, notes)

    def limits(self, n_tokens: np.ndarray) -> np.ndarray:
        """Thresholds of texts at each rate and at `DECISION_FPR`, (docs, rates + 1); NaN where none is promised."""
        table = np.full((len(n_tokens), len(self.fprs) + 1), np.nan)
        for column, fpr in enumerate((*self.fprs, DECISION_FPR)):
            if self.calibration is not None and fpr >= self.calibration.smallest_fpr:
                table[:, column] = self.calibration.thresholds(fpr, n_tokens)
        return table


def with_fixed_rules(judgements: pl.DataFrame, fprs: Sequence[float] = FPRS) -> pl.DataFrame:
    """Judgements with what each fold's calibration part says of its test texts, so that anybody can check a figure.

    Args:
        judgements: rows of `JUDGEMENT_SCHEMA`.
        fprs: rates of the thresholds.

    Returns:
        The same rows, fold by fold, with `probability` of being machine-written and `threshold@x` for each rate and
        for `DECISION_FPR`: what `score` must reach to be flagged. Null in calibration parts and where `figures_table`
        gives no figure either.
    """
    names = [f"threshold@{rate_name(fpr)}" for fpr in (*fprs, DECISION_FPR)]
    folds = []
    for fold in judgements.partition_by(PLACE, maintain_order=True):
        rules = FixedRules.of(fold.filter(part="calibration"), fprs)
        scores = fold["score"].to_numpy()
        limits = rules.limits(fold["n_tokens"].to_numpy())
        said = dict(zip(names, limits.T, strict=True))
        said["probability"] = np.full(len(fold), np.nan) if rules.platt is None else rules.platt.probabilities(scores)
        judged = pl.col("part") == "test"
        columns = [pl.when(judged).then(pl.Series(value)).fill_nan(None).alias(name) for name, value in said.items()]
        folds.append(fold.with_columns(columns))
    return pl.concat(folds)


def calibration_of(part: pl.DataFrame) -> Calibration | None:
    """The human scores of a calibration part; None where it has none."""
    human = part.filter(label=0)
    if not len(human):
        return None
    if human["corpus"][0] != OWN_CALIBRATION:
        return Calibration(human["score"].to_numpy(), {})
    domains = None if human["domain"].null_count() else human["domain"].to_numpy()
    return Calibration(human["score"].to_numpy(), {}, domains, human["n_tokens"].to_numpy())


def _figures(
    texts: pl.DataFrame, rules: FixedRules, resamples: int, seed: int
) -> tuple[list[tuple[float, float, float]], list[str]]:
    """Value, low and high of each of `figure_names` on some texts, NaN where there is none; and why there is none."""
    machine = texts["label"].to_numpy() == 1
    _, source = np.unique(texts["source"].to_numpy(), return_inverse=True)
    sources = int(source.max()) + 1
    table = resampled_figures(texts, rules, source, with_sample(draw_sources(sources, resamples, seed)))
    low, high = percentiles(table[1:]) if sources > 1 else np.full((2, table.shape[1]), np.nan)
    low[np.isnan(table[0])] = high[np.isnan(table[0])] = np.nan
    low[-1], high[-1] = _unbiased(table[:, -1], low[-1], high[-1])
    for index, name in enumerate(figure_names(rules.fprs)):
        if (of := texts_of_rate(name, machine)) is not None:
            low[index], high[index] = widened(table[0, index], low[index], high[index], source[of])
    return list(zip(*(part.tolist() for part in (table[0], low, high)), strict=True)), [
        *_class_notes(machine, rules.fprs),
        *rules.notes,
        *(["no intervals: one source"] if sources == 1 else []),
    ]


def with_sample(counts: np.ndarray) -> np.ndarray:
    """Drawn counts of sources below a row of ones, the sample itself: (1 + resamples, sources)."""
    return np.concatenate([np.ones((1, counts.shape[1])), counts])


def resampled_figures(texts: pl.DataFrame, rules: FixedRules, source: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Each of `figure_names` in each resample, NaN where there is none: (resamples, figures).

    Args:
        texts: rows of `JUDGEMENT_SCHEMA`.
        rules: what the calibration part fixed.
        source: (texts,) index of the source of each in `counts`.
        counts: (resamples, sources) how often each source was drawn.
    """
    machine, scores = texts["label"].to_numpy() == 1, texts["score"].to_numpy()
    return np.concatenate(
        [
            ranking_figures(machine, scores, source, counts, rules.fprs),
            _decision_figures(machine, scores, source, counts, rules.limits(texts["n_tokens"].to_numpy())),
            _probability_figures(machine, scores, source, counts, rules.platt),
        ],
        axis=1,
    )


def texts_of_rate(name: str, machine: np.ndarray) -> np.ndarray | None:
    """Which texts, by their being machine-written, a figure is a share of: (texts,) bool; None where it is no share."""
    classes = _TEXTS_OF_RATE.get(name.partition("@")[0])
    return None if classes is None else np.isin(machine, classes)


def _unbiased(drawn: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """The interval of a column of figures, the sample's own first, less the bias that resampling adds to it."""
    bias = drawn[1:].mean() - drawn[0]
    return float(np.maximum(0.0, low - bias)), high - bias  # NaN stays NaN


def widened(value: float, low: float, high: float, source: np.ndarray) -> tuple[float, float]:
    """Bounds of a rate, the far one widened where the rate is 0 or 1: the 2.5% bound of that many sources in a row."""
    if not np.isnan(low) and value in (0.0, 1.0):
        width = 1 - 0.025 ** (1 / len(np.unique(source)))
        return (low, max(high, width)) if value == 0.0 else (min(low, 1 - width), high)
    return low, high


def _class_notes(machine: np.ndarray, fprs: Sequence[float]) -> list[str]:
    """What the counts of the classes mean for the figures."""
    humans, machines = int((~machine).sum()), int(machine.sum())
    if not humans or not machines:
        return [f"no {'human' if not humans else 'machine'} texts"]
    coarse = [rate_name(fpr) for fpr in fprs if humans * fpr < 1]
    return [f"tpr@{', '.join(coarse)} is at no false positive: {humans} human texts"] if coarse else []


def _decision_figures(
    machine: np.ndarray, scores: np.ndarray, source: np.ndarray, counts: np.ndarray, limits: np.ndarray
) -> np.ndarray:
    """Real FPR and TPR at each fixed threshold, F1 and accuracy at the decision's: (resamples, 2 * rates + 2).

    `limits` are (docs, rates + 1), the decision's last; a column is NaN where there is none.
    """
    missing = np.isnan(limits).any(axis=0)
    flagged = scores[:, None] >= limits  # (docs, rates + 1)
    sums = totals(
        np.column_stack([~machine, machine, flagged & ~machine[:, None], flagged & machine[:, None]]), source, counts
    )
    human, positive = sums[:, :1], sums[:, 1:2]
    false, found = np.split(sums[:, 2:], 2, axis=1)  # (resamples, rates + 1) each
    with np.errstate(invalid="ignore", divide="ignore"):  # a resample without a class: NaN
        rates = np.stack([false / human, found / positive], axis=2)[:, :-1]  # (resamples, rates, 2)
        f1 = 2 * found[:, -1:] / (found + false + positive)[:, -1:]
        accuracy = (found + human - false)[:, -1:] / (human + positive)
    rates = np.where(missing[:-1, None], np.nan, rates).reshape(len(counts), -1)
    decided = np.concatenate([f1, accuracy], axis=1)
    decided[((human == 0) | (positive == 0))[:, 0] | missing[-1]] = np.nan
    return np.concatenate([rates, decided], axis=1)


def _probability_figures(
    machine: np.ndarray, scores: np.ndarray, source: np.ndarray, counts: np.ndarray, platt: PlattScaling | None
) -> np.ndarray:
    """Brier score and ECE, its bins those of the sample itself: (resamples, 2)."""
    if platt is None or machine.all() or not machine.any():
        return np.full((len(counts), 2), np.nan)
    probabilities = platt.probabilities(scores)
    miss = machine - probabilities  # (docs,)
    bins = equal_mass_bins(probabilities)
    in_bin = bins[:, None] == np.unique(bins)  # (docs, bins)
    sums = totals(np.column_stack([np.ones_like(miss), miss**2, miss[:, None] * in_bin]), source, counts)
    texts = sums[:, 0]
    with np.errstate(invalid="ignore"):  # a resample without a text: NaN
        return np.column_stack([sums[:, 1] / texts, np.abs(sums[:, 2:]).sum(axis=1) / texts])


def _table_schema(names: Sequence[str]) -> dict[str, pl.DataType]:
    place = {name: JUDGEMENT_SCHEMA[name] for name in PLACE}
    counts = {name: pl.Int64() for name in ("humans", "machines", "sources")}
    figures = {f"{name}{end}": pl.Float64() for name in names for end in ("", "_low", "_high")}
    return {**place, "slice": pl.String(), "value": pl.String(), **counts, **figures, "note": pl.String()}


def _check(judgements: pl.DataFrame, fprs: Sequence[float], slices: Sequence[str]) -> None:
    """Refuse what would give wrong figures, or none."""
    if missing := [name for name in JUDGEMENT_SCHEMA if name not in judgements.columns]:
        raise InputError(f"the judgements have no column {missing[0]!r}; expected {', '.join(JUDGEMENT_SCHEMA)}")
    if unknown := [kind for kind in slices if kind not in SLICES]:
        raise UsageError(f"no slice {unknown[0]!r}; choose from {', '.join(SLICES)}")
    if wrong := [fpr for fpr in fprs if not 0 < fpr < 1]:
        raise UsageError(f"expected a false-positive rate between 0 and 1, got {wrong[0]}; try 0.01")
    bad = judgements.filter(pl.col("score").is_null() | ~pl.col("score").is_finite())
    if len(bad):
        raise InputError(
            f"{len(bad)} of {len(judgements)} scores are missing, NaN or infinite, the first from detector "
            f"{bad['detector'][0]} for {bad['id'][0]}; score those texts again or leave them out"
        )
