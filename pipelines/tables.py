"""Figures as tables for people: the terminal, Markdown, CSV."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from detect.protocol import write_bytes

if TYPE_CHECKING:
    from rich.console import Group

USUAL_RATE = "1%"
"""The false-positive rate that a terminal has room for, where figures are given at it."""

TITLES = {
    "auroc": "AUROC",
    "average_precision": "average precision",
    "real_fpr": "real FPR",
    "real_tpr": "real TPR",
    "tpr": "TPR",
    "f1": "F1",
    "brier": "Brier",
    "ece": "ECE",
    "auroc_attacked_human": "AUROC, humans attacked too",
    "success": "success",
    "edit_distance": "edits",
    "edit_distance_human": "edits, human",
}
ABSENT = "-"
_PLACE = ("protocol", "folds", "left out", "slice", "human / machine", "seed")
_NAME_WIDTH = 22  # with four intervals of 13, 80 columns


def title(name: str) -> str:
    """A figure as a heading: "real_fpr@1%" is "real FPR @ 1%"."""
    kind, at, rate = name.partition("@")
    return TITLES.get(kind, kind) + (f" @ {rate}" if at else "")


def figures_in(frame: pl.DataFrame) -> list[str]:
    """The figures of a table of folds or of means, in the order of its columns."""
    return [name for name in frame.columns if {f"{name}_low", f"{name}_sd"} & set(frame.columns)]


def first_figures(frame: pl.DataFrame) -> list[str]:
    """Those that fit a terminal: AUROC, and the rates at 1% FPR, or at the smallest that figures are given at."""
    names = figures_in(frame)
    rates = [name.partition("@")[2] for name in names if name.startswith("tpr@")]
    rate = USUAL_RATE if USUAL_RATE in rates else min(rates, key=lambda given: float(given.rstrip("%")), default="")
    first = ("auroc", f"tpr@{rate}", f"real_fpr@{rate}", f"real_tpr@{rate}")
    return [name for name in names if name in first]


def further_figures(frame: pl.DataFrame) -> list[str]:
    """All others."""
    first = first_figures(frame)
    return [name for name in figures_in(frame) if name not in first]


def folds_table(figures: pl.DataFrame, shown: Sequence[str]) -> pl.DataFrame:
    """Every fold and slice as text: "0.912 [0.894-0.930]", the interval behind the value; a dash where there is none.

    Args:
        figures: as `figures_table` gives, or some of its rows.
        shown: which figures, of those that are there.
    """
    place = {
        "protocol": pl.col("protocol"),
        "left out": pl.col("held_out").fill_null(ABSENT),
        "slice": pl.when(pl.col("slice") == "all").then(pl.lit("all")).otherwise(pl.format("{}: {}", "slice", "value")),
        "detector": pl.col("detector"),
        "human / machine": pl.format("{} / {}", "humans", "machines"),
    }
    if figures["seed"].n_unique() > 1:
        place["seed"] = pl.col("seed").cast(pl.String)
    table = figures.select(**place, **{title(name): interval(name) for name in shown if name in figures.columns})
    return table.drop("slice") if (figures["slice"] == "all").all() else table


def means_as_text(means: pl.DataFrame, shown: Sequence[str]) -> pl.DataFrame:
    """The mean of each protocol as text: "0.912 [0.901-0.922] ±0.004", the deviation where there are several seeds.

    Args:
        means: as `means_with_intervals` gives.
        shown: which figures, of those that are there.
    """
    columns = {title(name): _deviation(name) for name in shown if name in means.columns}
    return means.select("protocol", pl.col("folds").cast(pl.String), "detector", **columns)


def to_terminal(table: pl.DataFrame, heading: str) -> "Group":
    """What rich prints of a table of text: a small table of detectors for each place, the place above it.

    From 80 columns on every value is whole; where room is short, an interval goes below its value.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    by = [column for column in table.columns if column in _PLACE]
    parts: list[Any] = [Text(heading, style="bold")]
    for place, rows in table.partition_by(by, as_dict=True, maintain_order=True).items():
        words = (f"{column} {value}" for column, value in zip(by, place, strict=True))
        part = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), pad_edge=False)
        for column in (shown := rows.drop(by)).columns:
            width = _NAME_WIDTH if column == "detector" else None
            part.add_column(Text(column), justify="left" if width else "right", no_wrap=bool(width), max_width=width)
        for row in shown.rows():
            part.add_row(*(Text(cell) for cell in row))
        parts += [Padding(Text(", ".join(words)), (1, 0, 0, 0)), part]
    return Group(*parts)


def to_markdown(table: pl.DataFrame, names: Collection[str] = ("protocol", "left out", "slice", "detector")) -> str:
    """A Markdown table of a table of text: the columns `names` to the left, numbers to the right."""
    lines = [table.columns, ["---" if column in names else "---:" for column in table.columns]]
    lines += [[cell.replace("|", "\\|") for cell in row] for row in table.rows()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def write_tables(figures: pl.DataFrame, means: pl.DataFrame, folder: Path) -> list[Path]:
    """`figures.csv` and `means.csv` with every figure and bound, `figures.md` for reading; what was written.

    Args:
        figures: as `figures_table` gives.
        means: as `means_with_intervals` gives for them.
        folder: made where it is not there.
    """
    whole, slices = figures.filter(pl.col("slice") == "all"), figures.filter(pl.col("slice") != "all")
    first, further = first_figures(figures), further_figures(figures)
    parts = {
        "Means over the folds of a protocol: 95% intervals by source": means_as_text(means, first),
        "Means: further figures": means_as_text(means, further),
        "Folds: 95% intervals by source": folds_table(whole, first),
        "Folds: further figures": folds_table(whole, further),
        "Slices: 95% intervals by source": folds_table(slices, first),
    }
    text = "\n".join(f"## {heading}\n\n{to_markdown(table)}" for heading, table in parts.items() if len(table))
    files = {"figures.csv": figures.write_csv(), "means.csv": means.write_csv(), "figures.md": text}
    for name, content in files.items():
        write_bytes(folder / name, content.encode())
    return [folder / name for name in files]


def interval(name: str) -> pl.Expr:
    """A figure as text, its interval behind the value; a dash where there is none."""
    value, low, high = (decimals(name + end) for end in ("", "_low", "_high"))
    interval = pl.when(low.is_not_null()).then(pl.format(" [{}-{}]", low, high)).otherwise(pl.lit(""))
    return pl.when(value.is_null()).then(pl.lit(ABSENT)).otherwise(pl.concat_str(value, interval))


def _deviation(name: str) -> pl.Expr:
    deviation = decimals(f"{name}_sd")
    beside = pl.when(deviation.is_not_null()).then(pl.format(" ±{}", deviation)).otherwise(pl.lit(""))
    return pl.concat_str(interval(name), beside)


def decimals(name: str) -> pl.Expr:
    """Three decimals; four where a rate is asked for that three would blur."""
    places = 4 if name.startswith("real_fpr@0.1%") else 3
    return pl.col(name).map_elements(lambda value: f"{value:.{places}f}", return_dtype=pl.String)
