import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from detect.measures import tpr_at_fpr
from pipelines.figures import figures_table
from pipelines.plots import COLOURS, curve, reliability, roc, score_distributions, slice_dots, write_plots
from tests.pipelines.judgement_rows import make_judgements

PNG = b"\x89PNG\r\n\x1a\n"


def many(judgements, count):
    """The same judgements under the names of several detectors, each with noise of its own."""
    rng = np.random.default_rng(0)
    return pl.concat(
        judgements.with_columns(
            detector=pl.lit(f"detector {number}"), score=pl.col("score") + pl.Series(rng.normal(size=len(judgements)))
        )
        for number in range(count)
    )


@pytest.fixture(scope="module")
def judgements() -> pl.DataFrame:
    return many(make_judgements(400, 260), 3)


@pytest.fixture(scope="module")
def figures(judgements) -> pl.DataFrame:
    return figures_table(judgements, resamples=20)


def named_lines(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def test_the_roc_axis_has_a_width_where_a_fold_has_one_human_text(judgements):
    human = judgements.filter(part="test", label=0, detector="detector 0").head(1)
    axes = roc(pl.concat([human, judgements.filter(part="test", label=1, detector="detector 0")])).axes[0]
    assert axes.get_xlim() == (0.5, 1)


def test_the_roc_curve_holds_the_exact_rates_of_the_measures(judgements):
    axes = roc(judgements).axes[0]
    assert axes.get_xscale() == "log"
    lines = named_lines(axes)
    assert list(lines) == ["detector 0", "detector 1", "detector 2", "chance"]
    test = judgements.filter(part="test", detector="detector 1")
    rates, tprs = lines["detector 1"].get_data()
    assert rates[0] == pytest.approx(1 / test.filter(label=0).height)
    for index in (0, 7, 50, 120, 199):
        assert tprs[index] == pytest.approx(tpr_at_fpr(test["label"], test["score"], rates[index]), abs=1e-12)


def test_the_roc_curve_of_several_folds_is_their_mean_and_folds_of_one_class_are_left_out(judgements):
    one = judgements.filter(detector="detector 0")
    other = one.with_columns(score=pl.Series(np.random.default_rng(9).normal(size=len(one))), held_out=pl.lit("other"))
    human = other.filter(label=0).with_columns(held_out=pl.lit("human only"))
    _, tprs = named_lines(roc(pl.concat([one, other, human])).axes[0])["detector 0"].get_data()
    alone = [named_lines(roc(pl.concat([fold, human])).axes[0])["detector 0"].get_data()[1] for fold in (one, other)]
    np.testing.assert_allclose(tprs, np.mean(alone, axis=0), atol=1e-12)


def test_score_distributions_have_a_panel_a_detector_with_both_classes_and_the_threshold(judgements):
    panels = [axes for axes in score_distributions(judgements).axes if axes.axison]
    assert [axes.get_title() for axes in panels] == ["detector 0", "detector 1", "detector 2"]
    assert panels[0].get_legend_handles_labels()[1] == ["human", "machine", "threshold at 1%"]
    human = judgements.filter(detector="detector 0", part="calibration", label=0)["score"].to_numpy()
    (threshold,) = panels[0].get_lines()
    expected = (np.sort(human)[-1] - human.mean()) / human.std()  # 100 to 199 texts: none may lie above
    assert 100 <= len(human) < 200
    assert threshold.get_xdata()[0] == pytest.approx(expected)


def test_scores_without_calibration_texts_are_shown_without_a_threshold(judgements):
    panels = score_distributions(judgements.filter(part="test")).axes
    assert panels[0].get_legend_handles_labels()[1] == ["human", "machine"]


def test_a_reliability_diagram_compares_probability_and_frequency_in_15_bins(judgements):
    axes = reliability(judgements).axes[0]
    line = named_lines(axes)["texts, in 15 bins"]
    probability, share = line.get_data()
    assert len(probability) == 15
    assert (np.diff(probability) > 0).all()
    test = judgements.filter(detector="detector 0", part="test")
    assert share.mean() == pytest.approx(test["label"].mean(), abs=0.02)
    assert list(named_lines(reliability(judgements.filter(part="test")).axes[0])) == ["perfect"]


def test_slices_show_each_figure_with_its_interval(figures):
    own = figures.filter(slice="domain")
    panels = slice_dots(own, "domain").axes
    assert [axes.get_title().splitlines()[0] for axes in panels] == ["news", "poems"]
    assert [text.get_text() for text in panels[0].get_yticklabels()] == ["detector 0", "detector 1", "detector 2"]
    dots, _, (bars,) = panels[0].containers[0]
    row = own.row(0, named=True)
    assert dots.get_xdata()[0] == row["auroc"]
    assert bars.get_segments()[0][:, 0].tolist() == pytest.approx([row["auroc_low"], row["auroc_high"]])


def test_a_slice_of_several_folds_shows_their_mean_and_range(figures):
    own = figures.filter(slice="domain", value="news", detector="detector 0")
    both = pl.concat([own, own.with_columns(held_out=pl.lit("y"), auroc=pl.col("auroc") - 0.2)])
    dots, _, (bars,) = slice_dots(both, "domain").axes[0].containers[0]
    assert dots.get_xdata().tolist() == pytest.approx([own["auroc"].item() - 0.1])
    ends = bars.get_segments()[0][:, 0]
    assert ends.tolist() == pytest.approx([own["auroc"].item() - 0.2, own["auroc"].item()])


def test_a_slice_without_a_figure_has_no_dot_and_is_drawn(figures):
    lost = figures.filter(slice="domain").with_columns(pl.lit(None, dtype=pl.Float64).alias("auroc"))
    dots, *_ = slice_dots(lost, "domain").axes[0].containers[0]
    assert np.isnan(dots.get_xdata()).all()


def at_lengths(figures):
    whole = figures.filter(slice="all")
    return pl.concat(
        whole.with_columns(
            protocol=pl.lit("length"), held_out=pl.lit(f"{tokens} tokens"), auroc=pl.col("auroc") - 1 / tokens
        )
        for tokens in (256, 16, 64)
    )


def test_a_curve_is_in_the_order_of_its_numbers(figures):
    panels = curve(at_lengths(figures), "tokens").axes
    assert [axes.get_ylabel() for axes in panels] == ["AUROC", "real TPR @ 1%"]
    numbers, aurocs = panels[0].containers[0][0].get_data()
    assert numbers.tolist() == [16, 64, 256]
    value = figures.filter(slice="all")["auroc"][0]
    assert aurocs.tolist() == pytest.approx([value - 1 / tokens for tokens in (16, 64, 256)])


def test_points_of_several_seeds_are_averaged_in_their_order(figures):
    one = at_lengths(figures)
    other = one.with_columns(
        seed=pl.lit(1, dtype=pl.Int64), held_out=pl.col("held_out").str.replace("16", "18"), auroc=pl.col("auroc") + 0.1
    )
    numbers, aurocs = curve(pl.concat([one, other]), "texts").axes[0].containers[0][0].get_data()
    assert numbers.tolist() == [17, 64, 256]
    alone = curve(one, "texts").axes[0].containers[0][0].get_ydata()
    assert aurocs.tolist() == pytest.approx((alone + 0.05).tolist())


def test_every_plot_is_written_as_svg_and_png(judgements, figures, tmp_path):
    paths = write_plots(judgements, pl.concat([figures, at_lengths(figures)]), tmp_path / "new")
    names = ["in-domain-roc", "in-domain-scores", "in-domain-reliability"]
    names += [f"in-domain-by-{kind}" for kind in ("domain", "generator", "attack", "length")]
    assert [path.name for path in paths] == [
        f"{name}.{suffix}" for name in [*names, "length-curve"] for suffix in ("svg", "png")
    ]
    for path in paths:
        content = path.read_bytes()
        assert content.startswith(PNG) if path.suffix == ".png" else b"<svg" in content[:1000]
    assert {path.name for path in (tmp_path / "new").iterdir()} == {path.name for path in paths}


def test_fifteen_detectors_differ_in_colour_or_dash():
    lines = roc(many(make_judgements(60, 50), 15)).axes[0].get_lines()[:-1]
    styles = {(line.get_color(), line.get_linestyle()) for line in lines}
    assert len(lines) == len(styles) == 15
    assert len(set(COLOURS)) == 8


def test_names_of_folds_never_leave_the_folder(judgements, figures, tmp_path):
    odd = pl.lit("../../x")
    whole = figures.filter(slice="all").with_columns(protocol=odd)
    paths = write_plots(judgements.with_columns(protocol=odd), whole, tmp_path / "in")
    assert {path.resolve().parent for path in paths} == {(tmp_path / "in").resolve()}
    assert list(tmp_path.iterdir()) == [tmp_path / "in"]


def test_plotting_leaves_no_global_state_and_loads_nothing_before_it_is_asked():
    script = (
        "import sys, pipelines.plots, pipelines.tables\n"
        "assert 'matplotlib' not in sys.modules\n"
        "import polars as pl\n"
        "from tests.pipelines.judgement_rows import make_judgements\n"
        "pipelines.plots.roc(make_judgements())\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
