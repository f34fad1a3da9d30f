"""The figures of a stress test -> pictures: heat maps of attacks and detectors, curves over the strength."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from pipelines.plots import legend_below, line_style, panel_grid, save_plot
from pipelines.robustness_figures import CLEAN, DEFENCES
from pipelines.tables import title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL_TITLES = {"none": "as they come", "normalised": "normalised before scoring"}
_LOWER_IS_BETTER = ("real_fpr", "success")


def write_robustness_plots(table: pl.DataFrame, order: Sequence[str], folder: Path, fpr: str) -> list[Path]:
    """Every picture as SVG and PNG; what was written.

    Args:
        table: what `robustness_table` gives, with a column `shown` that names attack, strength and target.
        order: values of `shown`, from top to bottom.
        folder: made where it is not there.
        fpr: the rate, as columns name it, of the figures shown beside the AUROC.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for name, figure in _every_plot(table, order, fpr):
        written += save_plot(figure, folder / name)
    return written


def _every_plot(table: pl.DataFrame, order: Sequence[str], fpr: str) -> "Iterator[tuple[str, Figure]]":
    rates = ((f"real_tpr@{fpr}", "tpr"), (f"real_fpr@{fpr}", "fpr"))
    for name, file in (("auroc", "auroc"), ("auroc_attacked_human", "auroc-humans-attacked"), *rates):
        if table[name].is_not_null().any():
            yield f"heat-map-{file}", heat_map(table, order, name)
    attacks = [attack for attack in table["attack"].unique(maintain_order=True) if attack != CLEAN]
    several = [attack for attack in attacks if table.filter(attack=attack)["strength"].n_unique() > 1]
    for name, file in (("auroc", "auroc"), (f"real_fpr@{fpr}", "fpr")):
        if several and table[name].is_not_null().any():
            yield f"strength-{file}", strength_curves(table, several, name)


def heat_map(table: pl.DataFrame, order: Sequence[str], name: str) -> "Figure":
    """A figure of every attack (rows) and detector (columns), beside the same with normalisation; brighter is better.

    Args:
        table: as for `write_robustness_plots`.
        order: values of `shown`, from top to bottom.
        name: of the figure.
    """
    from matplotlib.figure import Figure

    detectors = table["detector"].unique(maintain_order=True).to_list()
    width = 2.2 + 2 * max(0.75 * len(detectors), 1.2)
    figure = Figure(figsize=(max(width, 6), 1.9 + 0.27 * len(order)), layout="constrained")
    panels = figure.subplots(1, len(DEFENCES), squeeze=False, sharey=True)[0]
    colours = "cividis_r" if name.startswith(_LOWER_IS_BETTER) else "cividis"
    for axes, defence in zip(panels, DEFENCES, strict=True):
        own = {row[:2]: row[2] for row in table.filter(defence=defence).select("shown", "detector", name).rows()}
        values = np.array([[own.get((shown, detector)) for detector in detectors] for shown in order], dtype=np.float64)
        image = axes.imshow(values, vmin=0, vmax=1, cmap=colours, aspect="auto")
        _write_values(axes, values, dark_is_low=colours == "cividis")
        axes.set_xticks(range(len(detectors)), detectors, rotation=30, ha="right", fontsize=8)
        axes.set_yticks(range(len(order)), order, fontsize=8)
        axes.set_title(PANEL_TITLES[defence], fontsize=9)
    figure.suptitle(_heading(name), fontsize=11)
    figure.colorbar(image, ax=list(panels), shrink=0.8, aspect=30)
    return figure


def _heading(name: str) -> str:
    """What a figure is of."""
    of = {
        "auroc": "AUROC: attacked machine against clean human texts",
        "auroc_attacked_human": "AUROC: attacked machine against attacked human texts",
        "real_tpr": f"{title(name)}: attacked machine texts that are flagged",
        "real_fpr": f"{title(name)}: attacked human texts that are flagged",
    }
    return of[name.partition("@")[0]]


def _write_values(axes: "Axes", values: np.ndarray, *, dark_is_low: bool) -> None:
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            colour = "white" if (value < 0.5) == dark_is_low else "black"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7.5, color=colour)


def strength_curves(table: pl.DataFrame, attacks: Sequence[str], name: str) -> "Figure":
    """A figure over the strength, a panel an attack; from the clean texts at 0; dotted: normalised before scoring.

    An attack that queries a detector is shown against the one that it queried.

    Args:
        table: as for `write_robustness_plots`.
        attacks: tried at several strengths.
        name: of the figure.
    """
    detectors = table["detector"].unique(maintain_order=True).to_list()
    figure, panels = panel_grid(len(attacks))
    for axes, attack in zip(panels, attacks, strict=True):
        targeted = pl.col("target").is_null() | (pl.col("target") == pl.col("detector"))
        points = table.filter(pl.col("attack").is_in([CLEAN, attack]), targeted)
        points = points.with_columns(pl.col("strength").fill_null(0)).sort("strength")
        for index, detector in enumerate(detectors):
            colour, _, marker = line_style(index)
            for defence, dash in (("none", "-"), ("normalised", ":")):
                own = points.filter(detector=detector, defence=defence).drop_nulls(name)
                label = detector if defence == "none" else None
                axes.plot(own["strength"], own[name], dash, color=colour, marker=marker, markersize=3, label=label)
        axes.set_title(attack, fontsize=9)
        axes.set_ylim(-0.03, 1.03)
        axes.grid(alpha=0.3)
    figure.suptitle(f"{_heading(name)}, over the strength\ndotted: normalised before scoring", fontsize=10)
    legend_below(figure, panels)
    return figure
