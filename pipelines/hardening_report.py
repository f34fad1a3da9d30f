"""What hardening changed, side by side: clean texts, attacks seen in training, attacks held out, attackers' outputs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from detect.protocol import write_bytes
from pipelines.cells import KEPT
from pipelines.figures import rate_name
from pipelines.parts import disk_errors
from pipelines.plots import MARKERS, legend_below, line_style, save_plot
from pipelines.robustness_figures import CLEAN
from pipelines.tables import ABSENT, title, to_markdown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OUTPUTS = "outputs"
HELD_OUT_OUTPUTS = "held-out outputs"
GROUPS = ("clean", "seen in training", "held out", "attackers' outputs", "held-out attackers' outputs")

NOTES = """\
The detector *before* learnt from the same texts without any attack, by the same recipe and split. Attacks **seen in
training** show what was learnt by heart as well as what was understood; only attacks and attackers **held out** show
what carries over. Texts judged are of sources that nothing was learnt from; thresholds are fixed on clean human texts
of others. AUROC sets attacked machine against clean human texts, and in its own columns against attacked human ones;
TPR and FPR are the shares of attacked machine and of attacked human texts that are flagged. An attack that queries a
detector is made anew against each one. A dash stands where there are no such texts to judge, or too few human ones to
fix a threshold. Intervals and all other figures: [the whole report](report.md)."""

GENERATOR_NOTES = """\
What stands above under `critic`, `dpo` or `dpo-human` are texts of a generator tuned by that method of `pawn redteam`,
with the same seed and prompts against each detector that it asks, on beginnings of training texts; the texts judged go
on with human texts of the test part, and "attacked human texts" are what their writers wrote in as many tokens. They
are shorter than the clean texts that fix the thresholds, so the AUROC against attacked human texts and the FPR are what
to look at. A generator that evades by writing rubbish shows it here: perplexity (under the untuned generator) far from
the human, or 4-grams repeated."""


def write_hardening_report(
    table: pl.DataFrame,
    seen: Sequence[str],
    held_out: Sequence[str],
    folder: Path,
    heading: str,
    fprs: Sequence[float],
    *,
    quality: pl.DataFrame | None = None,
) -> list[Path]:
    """Write `hardening.md`, `hardening.csv` and its picture; what was written.

    Args:
        table: what `robustness_table` gives, of detectors in the order in which they were trained.
        seen: attacks that were learnt from.
        held_out: attacks that were not.
        folder: of the report, which is there.
        heading: of the report.
        fprs: false-positive rates of the thresholds.
        quality: of the texts of tuned generators, as `Generators.quality` gives it, where there are such.

    Raises:
        PawnError: when the disk refuses.
    """
    rows = grouped(table, seen, held_out)
    names = compared_figures(table, fprs)
    text = side_by_side(rows, names)
    with disk_errors(folder, KEPT):
        (folder / "plots").mkdir(parents=True, exist_ok=True)
        plots = save_plot(comparison(rows, names), folder / "plots" / "hardening")
        parts = [f"# {heading}", NOTES, to_markdown(text, ("texts", "attack")), "![hardening](plots/hardening.png)"]
        if quality is not None:
            parts += ["## Texts of tuned generators", GENERATOR_NOTES, to_markdown(_rounded(quality), ("texts",))]
        write_bytes(folder / "hardening.md", ("\n\n".join(part.rstrip("\n") for part in parts) + "\n").encode())
        write_bytes(folder / "hardening.csv", rows.select("texts", "name", "detector", *names).write_csv().encode())
    return [folder / "hardening.md", folder / "hardening.csv", *plots]


def _rounded(quality: pl.DataFrame) -> pl.DataFrame:
    """The figures as text."""
    columns = quality.select("texts", "perplexity", "repetition").rows()
    rows = [(texts, f"{perplexity:.1f}", f"{repetition:.2%}") for texts, perplexity, repetition in columns]
    return pl.DataFrame(rows, schema=["texts", "perplexity", "repeated 4-grams"], orient="row")


def compared_figures(table: pl.DataFrame, fprs: Sequence[float]) -> list[str]:
    """The figures that are set side by side, of those that could be had."""
    rates = [rate_name(fpr) for fpr in fprs]
    shares = [f"{kind}@{rate}" for rate in rates for kind in ("real_tpr", "real_fpr")]
    names = ["auroc", "auroc_attacked_human", *shares]
    return [name for name in names if table[name].is_not_null().any()]


def grouped(table: pl.DataFrame, seen: Sequence[str], held_out: Sequence[str]) -> pl.DataFrame:
    """The rows that are compared, each attack against its own detector, under `texts` (of `GROUPS`) and `name`.

    The mean of the attacks of a group follows them, as `name` "mean".
    """
    groups = {
        CLEAN: GROUPS[0],
        **dict.fromkeys(seen, GROUPS[1]),
        **dict.fromkeys(held_out, GROUPS[2]),
        OUTPUTS: GROUPS[3],
        HELD_OUT_OUTPUTS: GROUPS[4],
    }
    own = table.filter(
        pl.col("defence") == "none", pl.col("target").is_null() | (pl.col("target") == pl.col("detector"))
    )
    strength = pl.col("strength").map_elements(lambda value: f" {value:g}", return_dtype=pl.String).fill_null("")
    rows = own.with_columns(
        texts=pl.col("attack").replace_strict(groups),
        name=pl.when(pl.col("attack") == CLEAN).then(pl.lit(ABSENT)).otherwise(pl.concat_str("attack", strength)),
    )
    figures = [name for name, kind in rows.schema.items() if kind == pl.Float64]
    attacks = rows.filter(pl.col("texts").is_in(GROUPS[1:3]))
    means = attacks.group_by("texts", "detector", maintain_order=True).agg(pl.col(figures).mean())
    means = means.with_columns(name=pl.lit("mean"))
    both = pl.concat([rows, means], how="diagonal")
    order = {group: place for place, group in enumerate(GROUPS)}
    return both.sort(pl.col("texts").replace_strict(order), maintain_order=True)


def side_by_side(rows: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """A row for each group and attack, as text; each figure of every detector beside its others.

    Args:
        rows: as `grouped` gives.
        names: of the figures.
    """
    detectors = rows["detector"].unique(maintain_order=True).to_list()
    found = []
    for (texts, name), own in rows.partition_by("texts", "name", as_dict=True, maintain_order=True).items():
        row = {"texts": str(texts), "attack": str(name)}
        for figure in names:
            for detector in detectors:
                value = own.filter(detector=detector)[figure].to_list()
                row[f"{title(figure)}, {detector}"] = f"{value[0]:.3f}" if value and value[0] is not None else ABSENT
        found.append(row)
    return pl.DataFrame(found)


def comparison(rows: pl.DataFrame, names: Sequence[str]) -> "Figure":
    """A dot for each detector, attack and figure, a panel a figure; lines part clean, seen, held out and outputs.

    Args:
        rows: as `grouped` gives.
        names: of the figures.
    """
    from matplotlib.figure import Figure

    places = rows.select("texts", "name").unique(maintain_order=True).rows()
    labels = [texts if name == ABSENT else f"{texts}: {name}" for texts, name in places]
    figure = Figure(figsize=(2.6 + 2.3 * len(names), 1.4 + 0.27 * len(places)), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    for axes, name in zip(panels, names, strict=True):
        for index, (detector, own) in enumerate(
            rows.partition_by("detector", as_dict=True, maintain_order=True).items()
        ):
            found = {row[:2]: row[2] for row in own.select("texts", "name", name).rows()}
            values = np.array([found.get(place) for place in places], dtype=np.float64)
            colour, marker = line_style(index)[0], MARKERS[index % len(MARKERS)]
            axes.plot(values, range(len(places)), marker, color=colour, markersize=5, label=detector[0], alpha=0.85)
        for number in range(1, len(places)):
            if places[number][0] != places[number - 1][0]:
                axes.axhline(number - 0.5, color="0.6", linewidth=0.8)
        axes.set(xlim=(-0.03, 1.03), ylim=(len(places) - 0.5, -0.5))
        axes.set_yticks(range(len(places)), labels, fontsize=8)
        axes.set_title(title(name), fontsize=9)
        axes.grid(alpha=0.3)
    legend_below(figure, list(panels))
    return figure
