"""Judgements and figures -> pictures, SVG and PNG. matplotlib's objects alone: no window, no state of its own."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from detect.measures import equal_mass_bins
from detect.probability import PlattScaling
from pipelines.figures import DECISION_FPR, PLACE, calibration_of, rate_name
from pipelines.parts import publish
from pipelines.tables import title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#8C6D1F")
"""Okabe and Ito's palette, told apart by colour-blind people too; its yellow, pale on white, is a brown here."""

DASHES = ("-", "--", ":")
MARKERS = ("o", "s", "^")
HUMAN, MACHINE = COLOURS[0], COLOURS[3]
CURVES = {"length": "tokens of each text that are read", "size": "texts that were trained on"}
"""Protocols whose `held_out` begins with a number, and what the number is."""

_SMALLEST_FPR = 1e-3
_PANEL = (2.5, 2.1)  # inches
_COLUMNS = 4


def write_plots(judgements: pl.DataFrame, figures: pl.DataFrame, folder: Path) -> list[Path]:
    """Every picture that the frames have something for, as SVG and PNG; what was written.

    Args:
        judgements: rows of `JUDGEMENT_SCHEMA`.
        figures: what `figures_table` makes of them.
        folder: made where it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for name, figure in _every_plot(judgements, figures):
        written += save_plot(figure, folder / re.sub(r"[^\w-]+", "-", name))
    return written


def _every_plot(judgements: pl.DataFrame, figures: pl.DataFrame) -> "Iterator[tuple[str, Figure]]":
    for protocol in figures["protocol"].unique(maintain_order=True):
        own = figures.filter(protocol=protocol)
        if protocol in CURVES:
            yield f"{protocol}-curve", curve(own, CURVES[protocol])
            continue
        judged = judgements.filter(protocol=protocol)
        yield f"{protocol}-roc", roc(judged)
        yield f"{protocol}-scores", score_distributions(judged)
        yield f"{protocol}-reliability", reliability(judged)
        if own["held_out"].n_unique() > 1:
            folds = own.filter(slice="all").with_columns(value=pl.col("held_out"))
            yield f"{protocol}-folds", slice_dots(folds, f"{protocol} left out")
        for kind in own["slice"].unique(maintain_order=True):
            if kind != "all":
                yield f"{protocol}-by-{kind}", slice_dots(own.filter(slice=kind), kind)


def save_plot(figure: "Figure", path: Path) -> list[Path]:
    """Write PATH.svg and PATH.png, each whole or not at all; the two paths."""
    written = []
    formats: dict[str, dict[str, Any]] = {"svg": {"metadata": {"Date": None}}, "png": {"dpi": 150}}
    for suffix, options in formats.items():
        target = path.with_name(f"{path.name}.{suffix}")
        temporary = target.with_name(f".{target.name}.tmp")
        figure.savefig(temporary, format=suffix, **options)
        publish(temporary, target)
        written.append(target)
    return written


def roc(judgements: pl.DataFrame) -> "Figure":
    """True-positive over false-positive rate of each detector, the mean of its folds; logarithmic to the left.

    The axis begins at 1 / (human texts of the smallest fold), at 0.001 at the least (finer rates are
    not measured) and at 0.5 at the most.
    """
    test = judgements.filter(part="test")
    fewest = test.group_by(PLACE).agg(humans=(pl.col("label") == 0).sum())["humans"].min()
    grid = np.geomspace(max(_SMALLEST_FPR, 1 / max(int(str(fewest or 1)), 2)), 1, 200)
    figure, axes = _single(6.4, 5.2)
    for index, (detector, own) in enumerate(_by_detector(test)):
        curves = [_tpr_at(fold, grid) for fold in own.partition_by(PLACE) if fold["label"].n_unique() == 2]
        if curves:
            colour, dash, _ = line_style(index)
            axes.step(grid, np.mean(curves, axis=0), dash, where="post", color=colour, label=detector, linewidth=1.6)
    axes.plot(grid, grid, color="0.7", linewidth=1, label="chance")
    axes.set(xscale="log", xlim=(grid[0], 1), ylim=(0, 1.005))
    axes.set(xlabel="false-positive rate", ylabel="true-positive rate", title=f"ROC, {_named(judgements)}")
    axes.grid(alpha=0.3)
    _legend_outside(axes)
    return figure


def score_distributions(judgements: pl.DataFrame) -> "Figure":
    """How the scores of the classes lie, a panel a detector, with the threshold that was fixed on other texts.

    Scores of a fold are measured in standard deviations from the mean of its human calibration texts (human test texts
    where there are none), so that folds can be shown together. The dotted line is the mean of the texts' thresholds.
    """
    detectors = list(_by_detector(judgements))
    figure, panels = panel_grid(len(detectors))
    for axes, (detector, own) in zip(panels, detectors, strict=True):
        scaled = [_in_deviations(fold) for fold in own.partition_by(PLACE)]
        human, machine = (np.concatenate([part[index] for part in scaled]) for index in (0, 1))
        low, high = np.quantile(np.concatenate([human, machine]), [0.005, 0.995])
        bins = np.linspace(low, max(high, low + 1e-9), 41).tolist()
        for values, colour, name in ((human, HUMAN, "human"), (machine, MACHINE, "machine")):
            if len(values):
                shown = np.clip(values, bins[0], bins[-1])
                axes.hist(shown, bins, density=True, histtype="stepfilled", color=colour, alpha=0.45, label=name)
        threshold = float(np.mean([part[2] for part in scaled]))
        if not np.isnan(threshold):
            axes.axvline(threshold, color="black", linestyle=":", label=f"threshold at {rate_name(DECISION_FPR)}")
        axes.set_title(detector, fontsize=9)
        axes.set_yticks([])
        axes.set_xlabel("deviations from human mean", fontsize=8)
    figure.suptitle(f"Scores, {_named(judgements)}")
    legend_below(figure, panels)
    return figure


def reliability(judgements: pl.DataFrame) -> "Figure":
    """Share of machine texts over the probability that was given, in 15 bins of equal mass, a panel a detector.

    Probabilities are fitted on each fold's calibration part (Platt); the folds are shown together.
    """
    detectors = list(_by_detector(judgements))
    figure, panels = panel_grid(len(detectors), height=2.6)
    for axes, (detector, own) in zip(panels, detectors, strict=True):
        axes.plot([0, 1], [0, 1], color="0.7", linewidth=1, label="perfect")
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
        axes.set_title(detector, fontsize=9)
        axes.set_xlabel("probability of machine", fontsize=8)
        axes.set_ylabel("share of machine", fontsize=8)
        given = [pair for fold in own.partition_by(PLACE) if (pair := _probabilities(fold)) is not None]
        if not given:
            continue
        label, probability = (np.concatenate([part[index] for part in given]) for index in (0, 1))
        bins = equal_mass_bins(probability)
        texts = np.bincount(bins)
        kept = texts > 0
        expected, found = (
            np.bincount(bins, weights=values)[kept] / texts[kept] for values in (probability, label.astype(float))
        )
        axes.plot(expected, found, "o-", color=HUMAN, markersize=4, linewidth=1, label="texts, in 15 bins")
    figure.suptitle(f"Reliability, {_named(judgements)}")
    legend_below(figure, panels)
    return figure


def slice_dots(figures: pl.DataFrame, kind: str, shown: Sequence[str] = ("auroc", "real_tpr@1%")) -> "Figure":
    """Figures of each detector, a panel a slice: a dot with its 95% interval.

    Where several folds or seeds have the slice, the dot is their mean and the bar goes from the lowest to the highest.

    Args:
        figures: rows of `figures_table` of one protocol and one kind of slice.
        kind: what the slices are of, for the heading.
        shown: which figures.
    """
    shown = [name for name in shown if name in figures.columns]  # other rates may have been asked for
    values = figures["value"].unique(maintain_order=True).to_list()
    detectors = figures["detector"].unique(maintain_order=True).to_list()
    figure, panels = panel_grid(len(values), height=0.6 + 0.19 * len(detectors), shared=True)
    for axes, value in zip(panels, values, strict=True):
        own = figures.filter(value=value)
        for index, name in enumerate(shown):
            rows = _means_with_bars(own, name, detectors)
            where = np.arange(len(detectors)) + 0.3 * (index / max(len(shown) - 1, 1) - 0.5)
            bars = [rows[:, 0] - rows[:, 1], rows[:, 2] - rows[:, 0]]
            axes.errorbar(
                rows[:, 0], where, xerr=np.maximum(bars, 0), linestyle="none", elinewidth=1, label=title(name),
                color=COLOURS[index % len(COLOURS)], marker=MARKERS[index % len(MARKERS)], markersize=3.5,
            )  # fmt: skip
        humans, machines = own.select(pl.col("humans", "machines").mean().round()).cast(pl.Int64).row(0)
        axes.set_title(f"{value}\n{humans} human, {machines} machine", fontsize=8)
        axes.set(xlim=(-0.02, 1.02), ylim=(len(detectors) - 0.5, -0.5))
        axes.set_yticks(range(len(detectors)), detectors, fontsize=8)
        axes.grid(alpha=0.3)
    figure.suptitle(f"By {kind}, {_named(figures, folds=False)}")
    legend_below(figure, panels)
    return figure


def curve(figures: pl.DataFrame, axis: str, shown: Sequence[str] = ("auroc", "real_tpr@1%")) -> "Figure":
    """Figures of each detector over the number that `held_out` begins with, with their 95% intervals.

    Points of several seeds are averaged in their order; the bar then goes from the lowest to the highest.

    Args:
        figures: rows of `figures_table` of the protocol "length" or "size".
        axis: what the number is.
        shown: which figures, a panel each.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator, ScalarFormatter

    shown = [name for name in shown if name in figures.columns]  # other rates may have been asked for
    number = pl.col("held_out").str.extract(r"^(\d+)").cast(pl.Float64)
    points = figures.filter(slice="all").with_columns(number=number).drop_nulls("number")
    points = points.with_columns(place=pl.col("number").rank("dense").over("detector", "seed"))
    figure = Figure(figsize=(4.4 * len(shown), 4), layout="constrained")
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for axes, name in zip(panels, shown, strict=True):
        for index, (detector, own) in enumerate(_by_detector(points)):
            parts = own.sort("place").partition_by("place")
            rows = np.array([_means_with_bars(part, name, [detector])[0] for part in parts])
            colour, dash, marker = line_style(index)
            axes.errorbar(
                [part["number"].mean() for part in parts], rows[:, 0],
                yerr=np.maximum([rows[:, 0] - rows[:, 1], rows[:, 2] - rows[:, 0]], 0), color=colour, linestyle=dash,
                marker=marker, markersize=4, linewidth=1.4, elinewidth=0.6, label=detector,
            )  # fmt: skip
        ticks = sorted(points["number"].unique())
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks if len(ticks) <= 8 else ticks[:: len(ticks) // 6])
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set(xlabel=axis, ylabel=title(name))
        axes.grid(alpha=0.3)
    _legend_outside(panels[-1])
    return figure


def _means_with_bars(figures: pl.DataFrame, name: str, detectors: Sequence[str]) -> np.ndarray:
    """Mean and ends of the bar of a figure for each detector, NaN where it has none: (detectors, 3)."""
    rows = []
    for detector in detectors:
        own = figures.filter(detector=detector).drop_nulls(name)
        ends = [f"{name}_low", f"{name}_high"] if len(own) == 1 else [name, name]
        bar = [own[ends[0]].min(), own[ends[1]].max()] if len(own) else [None, None]
        rows.append([own[name].mean(), *bar])
    table = np.array(rows, dtype=np.float64)
    table[:, 1:] = np.where(np.isnan(table[:, 1:]), table[:, :1], table[:, 1:])  # no interval: no bar
    return table


def _tpr_at(fold: pl.DataFrame, grid: np.ndarray) -> np.ndarray:
    """Highest TPR of a fold at each false-positive rate, as `detect.measures.tpr_at_fpr` has it: (grid,)."""
    human, machine = (np.sort(fold.filter(label=label)["score"].to_numpy()) for label in (0, 1))
    allowed = np.searchsorted(np.arange(len(human) + 1) / len(human), grid, side="right") - 1
    highest_left = np.concatenate([[-np.inf], human])[len(human) - allowed]  # of the human texts that are not flagged
    return 1 - np.searchsorted(machine, highest_left, side="right") / len(machine)


def _in_deviations(fold: pl.DataFrame) -> tuple[np.ndarray, np.ndarray, float]:
    """Human and machine test scores and the threshold, in deviations of the human calibration scores (else test)."""
    human = fold.filter(pl.col("label") == 0)
    calibration = human.filter(part="calibration")["score"].to_numpy()
    test = fold.filter(part="test")
    reference = calibration if len(calibration) else human["score"].to_numpy()
    centre, scale = (reference.mean(), reference.std() or 1.0) if len(reference) else (0.0, 1.0)
    threshold = float("nan")
    rule = calibration_of(fold.filter(part="calibration"))
    if rule is not None and rule.smallest_fpr <= DECISION_FPR:
        threshold = float(np.mean(rule.thresholds(DECISION_FPR, test["n_tokens"].to_numpy())) - centre) / scale
    scores = [(test.filter(label=label)["score"].to_numpy() - centre) / scale for label in (0, 1)]
    return scores[0], scores[1], threshold


def _probabilities(fold: pl.DataFrame) -> tuple[np.ndarray, np.ndarray] | None:
    """Labels and probabilities of the test texts; None where the calibration part lacks a class."""
    calibration, test = fold.filter(part="calibration"), fold.filter(part="test")
    if calibration["label"].n_unique() < 2 or not len(test):
        return None
    fitted = PlattScaling.fit(calibration["label"].to_numpy(), calibration["score"].to_numpy())
    return test["label"].to_numpy(), fitted.probabilities(test["score"].to_numpy())


def _by_detector(frame: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """Detectors in the order of their first row, so that one has the same style in every picture of a run."""
    for (detector,), own in frame.partition_by("detector", as_dict=True, maintain_order=True).items():
        yield str(detector), own


def _named(frame: pl.DataFrame, *, folds: bool = True) -> str:
    protocol, count = frame["protocol"][0], frame["held_out"].n_unique()
    if protocol == "in-domain":
        return "in domain"
    if protocol == "evaluation":  # of detectors that were ready: nothing was left out
        return "on the texts given"
    return f"leaving out one {protocol}" + (f" of {count} at a time" if folds and count > 1 else " at a time")


def line_style(index: int) -> tuple[str, str, str]:
    """Colour, dash and marker of the detector with a number: 24 that differ."""
    turn = index // len(COLOURS) % len(DASHES)
    return COLOURS[index % len(COLOURS)], DASHES[turn], MARKERS[turn]


def _single(width: float, height: float) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def panel_grid(count: int, *, height: float = _PANEL[1], shared: bool = False) -> "tuple[Figure, list[Axes]]":
    """A figure of small panels, row by row; `shared`: the axes are the same in all, and written at the edge alone."""
    from matplotlib.figure import Figure

    rows = -(-count // _COLUMNS)
    columns = -(-count // rows)
    figure = Figure(figsize=(max(columns * _PANEL[0], 4.5), rows * height + 0.9), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=shared, sharey=shared).ravel()
    for axes in grid[count:]:
        axes.set_axis_off()
    for axes in grid[:count]:
        axes.tick_params(labelsize=8)
    if shared:  # the panel above an empty place writes the axis itself
        for axes in grid[max(count - columns, 0) : count]:
            axes.tick_params(labelbottom=True)
    return figure, list(grid[:count])


def _legend_outside(axes: "Axes") -> None:
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)


def legend_below(figure: "Figure", panels: "Sequence[Axes]") -> None:
    """One legend for all panels, each name once."""
    named: dict[str, Any] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        named |= {label: handle for handle, label in zip(handles, labels, strict=True) if label not in named}
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
