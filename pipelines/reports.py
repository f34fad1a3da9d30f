"""Judgements and figures -> the folder that a person reads: scores, tables, pictures."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from detect.protocol import write_bytes
from pipelines.figures import with_fixed_rules
from pipelines.parts import disk_errors, publish
from pipelines.plots import write_plots
from pipelines.tables import figures_in, first_figures, means_as_text, to_terminal, write_tables


def write_report(
    judgements: pl.DataFrame,
    figures: pl.DataFrame,
    means: pl.DataFrame,
    folder: Path,
    title: str,
    fprs: Sequence[float],
    warnings: Sequence[str] = (),
) -> list[Path]:
    """Write `judgements.parquet` with thresholds and probabilities, the tables, `plots/` and `report.md` with both.

    Args:
        judgements: rows of `JUDGEMENT_SCHEMA`.
        figures: what `figures_table` makes of them.
        means: what `means_with_intervals` makes of both.
        folder: made where it is not there.
        title: of the report.
        fprs: rates of the thresholds that `judgements.parquet` has.
        warnings: what its reader should know before any figure.

    Returns:
        What was written.

    Raises:
        PawnError: when the disk refuses.
    """
    with disk_errors(folder, "then repeat the command"):
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / ".judgements.tmp"
        with_fixed_rules(judgements, fprs).write_parquet(temporary)
        publish(temporary, folder / "judgements.parquet")
        tables = write_tables(figures, means, folder)
        plots = write_plots(judgements, figures, folder / "plots")
        report = folder / "report.md"
        write_bytes(report, _report(title, warnings, folder, plots).encode())
    return [folder / "judgements.parquet", *tables, report, *plots]


def _report(title: str, warnings: Sequence[str], folder: Path, plots: list[Path]) -> str:
    pictures = [f"![{path.stem}](plots/{path.name})" for path in plots if path.suffix == ".png"]
    notes = (
        "Real FPR and TPR are those at thresholds fixed on other texts than the ones judged; TPR at an exact FPR is "
        "at the threshold that gives it on the texts judged. Intervals are 95%, by bootstrap over sources; "
        "± is the standard deviation between seeds."
    )
    told = [f"**Warning:** {warning}" for warning in warnings]
    return (
        "\n\n".join([f"# {title}", *told, notes, (folder / "figures.md").read_text(), "## Pictures", *pictures]) + "\n"
    )


def headline(means: pl.DataFrame) -> dict[str, float]:
    """All means of each detector and protocol by name, for a run's record: "protocol/detector/auroc".

    Args:
        means: as `means_table` gives.
    """
    found = {}
    names = figures_in(means)
    for row in means.iter_rows(named=True):
        detector = row["detector"].replace("/", "-")  # a path, where two detectors have one name
        for name in names:
            if row.get(name) is not None:
                found[f"{row['protocol']}/{detector}/{name}"] = row[name]
    return found


def print_means(means: pl.DataFrame, folder: Path) -> None:
    """The means of each protocol as a table on standard output, and where the rest is."""
    from rich.console import Console

    console = Console()
    console.print(to_terminal(means_as_text(means, first_figures(means)), "Means over the folds of a protocol"))
    console.print(f"All figures, slices and pictures: {folder / 'report.md'}", soft_wrap=True)
