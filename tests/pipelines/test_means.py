import numpy as np
import polars as pl
import pytest

from pipelines.bootstrap import draw_sources
from pipelines.figures import FixedRules, figure_names, figures_table, resampled_figures, with_sample
from pipelines.means import means_table, means_with_intervals
from tests.pipelines.judgement_rows import make_judgements

RATES = (0.05, 0.1)


def fold(number, held_out="x", seed=0, *, detector="one", apart=False, human=400, machine=260):
    """Judgements of a fold of its own texts; with `apart` its sources are no other fold's."""
    return make_judgements(human, machine, seed=number).with_columns(
        detector=pl.lit(detector),
        held_out=pl.lit(held_out),
        seed=pl.lit(seed, dtype=pl.Int64),
        source=pl.col("source") + (1000 * number if apart else 0),
    )


def means_of(judgements, resamples=50, seed=0):
    figures = figures_table(judgements, fprs=RATES, slices=(), resamples=resamples, seed=seed)
    return means_with_intervals(figures, judgements, fprs=RATES, resamples=resamples, seed=seed)


def width(means, name="auroc"):
    return means[f"{name}_high"].item() - means[f"{name}_low"].item()


def naive_rows(texts, drawn):
    """The texts of drawn sources, as often as they were drawn."""
    return pl.concat([texts.filter(source=source) for source, times in drawn.items() for _ in range(times)])


def test_every_fold_is_judged_by_itself_and_means_are_over_folds_then_seeds():
    folds = [
        make_judgements(300, 200, seed=number).with_columns(
            detector=pl.lit(detector), held_out=pl.lit(held_out), seed=pl.lit(seed, dtype=pl.Int64)
        )
        for number, (detector, held_out, seed) in enumerate(
            [("b", "x", 0), ("b", "y", 0), ("b", "x", 1), ("b", "y", 1), ("a", "x", 0)]
        )
    ]
    figures = figures_table(pl.concat(folds), slices=("domain",), resamples=2)
    assert figures.filter(slice="all").height == 5
    alone = [figures_table(fold, slices=(), resamples=2)["auroc"].item() for fold in folds]
    assert figures.filter(slice="all")["auroc"].to_list() == alone
    means = means_table(figures)
    assert means.select("detector", "protocol", "folds", "seeds").rows() == [
        ("b", "in-domain", 2, 2),
        ("a", "in-domain", 1, 1),
    ]
    by_seed = [np.mean(alone[:2]), np.mean(alone[2:4])]
    assert means["auroc"].to_list() == pytest.approx([np.mean(by_seed), alone[4]])
    assert means["auroc_sd"][0] == pytest.approx(np.std(by_seed, ddof=1))
    assert means["auroc_sd"][1] is None


def test_a_mean_says_of_how_many_folds_it_is():
    many, few = make_judgements(900, 200), make_judgements(100, 90).with_columns(held_out=pl.lit("y"))
    means = means_table(figures_table(pl.concat([many, few]), fprs=(0.01, 0.1), slices=(), resamples=2))
    assert means["real_fpr@1%"].item() is not None
    assert means["note"].item() == "; ".join(
        f"{name} over 1 of 2 folds" for name in ("real_fpr@1%", "real_tpr@1%", "f1@1%", "accuracy@1%")
    )


@pytest.mark.parametrize("apart", [True, False])
def test_intervals_are_percentiles_of_means_over_folds_of_a_naive_loop_over_drawn_sources(apart):
    folds = [fold(0, "x", 0, apart=apart), fold(1, "y", 0, apart=apart), fold(2, "x", 1, apart=apart)]
    judgements = pl.concat(folds)
    row = means_of(judgements, resamples=30, seed=4).row(0, named=True)
    sources = sorted(judgements.filter(part="test")["source"].unique())
    found = []
    for drawn in draw_sources(len(sources), 30, seed=4).astype(int):
        times = dict(zip(sources, drawn, strict=True))
        rows = []
        for own in folds:
            resample = naive_rows(own.filter(part="test"), times)
            both = pl.concat([own.filter(part="calibration"), resample])
            table = figures_table(both, fprs=RATES, slices=(), resamples=2)
            rows.append([table[name].item() for name in figure_names(RATES)])
        found.append(((np.array(rows[0]) + rows[1]) / 2 + rows[2]) / 2)  # over folds, then over seeds
    low, high = np.quantile(np.array(found), [0.025, 0.975], axis=0)
    names = figure_names(RATES)[:-1]  # the bins of the ECE are others in every resample of the loop
    np.testing.assert_allclose([row[f"{name}_low"] for name in names], low[:-1], atol=1e-12)
    np.testing.assert_allclose([row[f"{name}_high"] for name in names], high[:-1], atol=1e-12)


def test_one_fold_has_its_own_interval_and_so_has_a_fold_that_comes_twice():
    judgements = fold(0)
    figures = figures_table(judgements, fprs=RATES, slices=("domain",), resamples=50)
    whole = figures.filter(slice="all")
    twice = pl.concat([judgements, judgements.with_columns(held_out=pl.lit("y"))])
    for means in (means_with_intervals(figures, judgements, fprs=RATES, resamples=50), means_of(twice)):
        for name in figure_names(RATES):
            for column in (name, f"{name}_low", f"{name}_high"):
                assert means[column].item() == pytest.approx(whole[column].item(), abs=1e-12), column


def test_folds_with_other_sources_make_the_mean_surer_and_folds_with_the_same_do_not():
    apart = pl.concat([fold(number, str(number), apart=True) for number in range(4)])
    same = pl.concat([fold(0, str(number)) for number in range(4)])
    single = width(means_of(fold(0), 400))
    assert width(means_of(same, 400)) == pytest.approx(single, rel=1e-9)
    # Four independent folds: half the width, up to the noise of 400 draws and of other texts.
    assert width(means_of(apart, 400)) == pytest.approx(single / 2, rel=0.25)


def test_the_mean_in_its_interval_is_that_of_the_means_table():
    places = [("x", 0), ("y", 0), ("x", 1)]
    judgements = pl.concat([fold(number, held_out, seed) for number, (held_out, seed) in enumerate(places)])
    means = means_of(judgements)
    table = means_table(figures_table(judgements, fprs=RATES, slices=(), resamples=2))
    for name in figure_names(RATES):
        assert means[name].item() == table[name].item()
        assert means[f"{name}_sd"].item() == table[f"{name}_sd"].item()
        assert means[f"{name}_low"].item() <= means[name].item() <= means[f"{name}_high"].item(), name


def test_a_figure_that_a_fold_lacks_has_the_interval_of_the_others():
    many, few = fold(0, "x", human=900), fold(1, "y", human=100)
    figures = figures_table(pl.concat([many, few]), fprs=(0.01,), slices=(), resamples=20)
    means = means_with_intervals(figures, pl.concat([many, few]), fprs=(0.01,), resamples=200)
    alone = figures_table(many, fprs=(0.01,), slices=(), resamples=200)
    assert "real_fpr@1% over 1 of 2 folds" in means["note"].item()
    assert means["real_tpr@1%"].item() == alone["real_tpr@1%"].item()
    assert width(means, "real_tpr@1%") == pytest.approx(width(alone, "real_tpr@1%"), rel=0.3)


def test_a_rate_that_is_zero_in_every_fold_is_as_uncertain_as_all_its_sources_say():
    folds = [fold(number, str(number), apart=True) for number in range(2)]
    human = (pl.col("part") == "test") & (pl.col("label") == 0)
    judgements = pl.concat(folds).with_columns(score=pl.when(human).then(-9.0).otherwise("score"))
    row = means_of(judgements).row(0, named=True)
    sources = judgements.filter(human)["source"].n_unique()
    assert (row["real_fpr@10%"], row["real_fpr@10%_low"]) == (0.0, 0.0)
    assert row["real_fpr@10%_high"] == pytest.approx(1 - 0.025 ** (1 / sources))


def test_detectors_are_drawn_alike_and_each_has_its_own_row():
    judgements = pl.concat([fold(number, str(number), detector=name) for name in ("b", "a") for number in range(2)])
    means = means_of(judgements)
    assert means["detector"].to_list() == ["b", "a"]
    assert means.drop("detector").row(0) == means.drop("detector").row(1)
    assert means_of(judgements.filter(detector="a")).row(0) == means.row(1)


def test_a_fold_of_one_source_gives_no_interval_and_is_told_of():
    lone = fold(1, "y").with_columns(source=pl.lit(5, dtype=pl.Int64))
    row = means_of(pl.concat([fold(0), lone])).row(0, named=True)
    assert row["auroc"] is not None
    assert row["auroc_low"] is row["auroc_high"] is None
    assert row["note"].endswith("no intervals: a fold of one source")


def test_a_fold_of_few_sources_is_missing_in_some_draws_which_count_for_nothing():
    judgements = pl.concat([fold(0), fold(1, "y", apart=True).with_columns(source=pl.col("source") % 2 + 5000)])
    row = means_of(judgements, 200).row(0, named=True)
    assert row["auroc_low"] < row["auroc"] < row["auroc_high"]
    assert row["ece_low"] is not None


def test_resampled_figures_of_the_sample_itself_are_its_figures():
    judgements = fold(0)
    texts = judgements.filter(part="test")
    rules = FixedRules.of(judgements.filter(part="calibration"), RATES)
    sources, source = np.unique(texts["source"].to_numpy(), return_inverse=True)
    table = resampled_figures(texts, rules, source, with_sample(np.zeros((0, len(sources)))))
    figures = figures_table(judgements, fprs=RATES, slices=(), resamples=2)
    np.testing.assert_allclose(table[0], [figures[name].item() for name in figure_names(RATES)], atol=1e-12)
