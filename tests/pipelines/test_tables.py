import polars as pl
import pytest
from rich.console import Console

from pipelines.figures import figure_names, figures_table
from pipelines.means import means_with_intervals
from pipelines.tables import (
    figures_in,
    first_figures,
    folds_table,
    further_figures,
    means_as_text,
    title,
    to_markdown,
    to_terminal,
    write_tables,
)
from tests.pipelines.judgement_rows import make_judgements

FIRST = ("auroc", "tpr@1%", "real_fpr@1%", "real_tpr@1%")


@pytest.fixture(scope="module")
def judgements() -> pl.DataFrame:
    return pl.concat([make_judgements(400, 260), make_judgements(60, 50).with_columns(detector=pl.lit("two|2"))])


@pytest.fixture(scope="module")
def figures(judgements) -> pl.DataFrame:
    return figures_table(judgements, slices=("domain",), resamples=20)


@pytest.fixture(scope="module")
def means(figures, judgements) -> pl.DataFrame:
    return means_with_intervals(figures, judgements, resamples=20)


def printed(table, width):
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_a_terminal_has_the_rates_at_one_percent_or_at_the_smallest_there_is(figures, means):
    for frame in (figures, means):
        assert first_figures(frame) == list(FIRST)
        assert figures_in(frame) == figure_names()
        assert sorted(first_figures(frame) + further_figures(frame)) == sorted(figure_names())
    at_others = figures.drop("tpr@1%", "tpr@1%_low", "tpr@1%_high")
    assert first_figures(at_others) == ["auroc", "tpr@0.1%", "real_fpr@0.1%", "real_tpr@0.1%"]


def test_names_of_figures_become_headings():
    assert [title(name) for name in ("auroc", "real_fpr@0.1%", "f1@1%")] == ["AUROC", "real FPR @ 0.1%", "F1 @ 1%"]


def test_a_cell_is_the_value_with_its_interval_or_a_dash(figures):
    row = figures.row(0, named=True)
    cells = folds_table(figures, ("auroc", "real_fpr@0.1%")).row(0, named=True)
    assert cells["AUROC"] == f"{row['auroc']:.3f} [{row['auroc_low']:.3f}-{row['auroc_high']:.3f}]"
    assert cells["real FPR @ 0.1%"] == "-"
    assert cells["human / machine"] == f"{row['humans']} / {row['machines']}"
    assert folds_table(figures, FIRST)["slice"].to_list()[:3] == ["all", "domain: news", "domain: poems"]


def test_the_seed_is_named_where_there_are_several_and_slices_where_there_are_any(figures):
    whole = figures.filter(slice="all")
    assert folds_table(whole, FIRST).columns[:4] == ["protocol", "left out", "detector", "human / machine"]
    two = pl.concat([whole, whole.with_columns(seed=pl.lit(1, dtype=pl.Int64))])
    assert folds_table(two, FIRST)["seed"].to_list() == ["0", "0", "1", "1"]


def test_means_have_their_interval_and_the_deviation_between_seeds_where_there_are_seeds(figures, judgements, means):
    first = means.row(0, named=True)
    interval = f"[{first['auroc_low']:.3f}-{first['auroc_high']:.3f}]"
    assert means_as_text(means, FIRST)["AUROC"][0] == f"{first['auroc']:.3f} {interval}"
    shifted = figures.with_columns(seed=pl.lit(1, dtype=pl.Int64), auroc=pl.col("auroc") - 0.1)
    again = judgements.with_columns(seed=pl.lit(1, dtype=pl.Int64))  # the same: the interval is that of one seed
    both = means_with_intervals(pl.concat([figures, shifted]), pl.concat([judgements, again]), resamples=20)
    assert means_as_text(both, FIRST)["AUROC"][0] == f"{first['auroc'] - 0.05:.3f} {interval} ±0.071"
    assert means_as_text(means, FIRST)["real FPR @ 1%"][1] == "-"


@pytest.mark.parametrize("width", [80, 140])
def test_a_terminal_table_keeps_every_value_whole_and_within_the_width(figures, width):
    text = printed(to_terminal(folds_table(figures.filter(slice="all"), FIRST), "Folds"), width)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    row = figures.row(0, named=True)
    place = f"protocol in-domain, left out nothing, human / machine {row['humans']} / {row['machines']}"
    for part in (place, "two|2", f"{row['auroc']:.3f}", f"[{row['auroc_low']:.3f}-{row['auroc_high']:.3f}]"):
        assert part in text


def test_markdown_escapes_what_would_be_a_column(figures):
    lines = to_markdown(folds_table(figures.filter(slice="all"), FIRST)).splitlines()
    assert lines[1].startswith("| --- | --- | --- | ---: |")
    assert "two\\|2" in lines[3]
    assert len(lines) == 4


def test_tables_are_written_as_csv_with_everything_and_as_markdown(figures, means, tmp_path):
    written = write_tables(figures, means, tmp_path / "new")
    assert [path.name for path in written] == ["figures.csv", "means.csv", "figures.md"]
    read = pl.read_csv(written[0], schema=figures.schema)
    assert read.with_columns(pl.col("note").fill_null("")).equals(figures)
    read = pl.read_csv(written[1], schema=means.schema)
    assert read.with_columns(pl.col("note").fill_null("")).equals(means)
    text = written[2].read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "## Means over the folds of a protocol: 95% intervals by source",
        "## Means: further figures",
        "## Folds: 95% intervals by source",
        "## Folds: further figures",
        "## Slices: 95% intervals by source",
    ]
