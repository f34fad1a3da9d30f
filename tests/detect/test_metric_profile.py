"""Every column against plain loops and the standard library, in float64; what columns there are is told by name."""

import math
import statistics
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from detect.metric_profile import PROFILE_COLUMNS, metric_profile
from features.token_features import METRIC_NAMES, TokenFeatures
from tests.detect.made_up import document
from tests.detect.test_lastde import naive_diversity_entropy
from tests.detect.test_pooled import columns_of, naive_differences, naive_quantile
from tests.detect.test_sequence_statistics import (
    naive_autocorrelation,
    naive_correlation,
    naive_gini,
    naive_moments,
    naive_spectral_shares,
    naive_window_means,
)

Lists = dict[str, list[float]]
Profile = dict[str, float]
Made = Callable[[int], TokenFeatures]
SHAPES = ("mean", "std", "skewness", "kurtosis")
THREE = ("surprisal", "normalised surprisal", "entropy")


def tracks(item: TokenFeatures) -> Lists:
    """The metrics of the predicted tokens by the names that columns have for them."""
    columns = columns_of(item)
    surprisal, entropy = [-value for value in columns["log_prob"]], columns["entropy"]
    deviation = [math.sqrt(max(value, 1e-4)) for value in columns["log_prob_variance"]]
    normalised = [(h - s) / d for s, h, d in zip(surprisal, entropy, deviation, strict=True)]
    return {
        "surprisal": surprisal,
        "entropy": entropy,
        "deviation": deviation,
        "log rank": columns["log_rank"],
        "likelier mass": columns["top_p"],
        "highest": columns["max_log_prob"],
        "own log-probability": columns["log_prob"],
        "normalised surprisal": normalised,
        "normalised": normalised,
        "|normalised|": [abs(value) for value in normalised],
        "place": [float(place) for place in range(len(surprisal))],
        "root of surprisal": [math.sqrt(max(value, 0.0)) for value in surprisal],
    }


def naive_profile(item: TokenFeatures) -> Profile:
    families = (
        *(naive_normalised, naive_kinds, naive_diversity, naive_thirds, naive_stretches, naive_persistence),
        *(naive_ratios, naive_relations, naive_repetition, naive_concentration, naive_spectra, naive_shapes),
    )
    found: Profile = {}
    for family in families:
        found |= family(tracks(item))
    return found


def naive_normalised(told: Lists) -> Profile:
    z, name = told["normalised surprisal"], "normalised surprisal"
    found = {f"{name} {shape}": value for shape, value in zip(SHAPES, naive_moments(z), strict=True)}
    found |= {f"{name} quantile {q}": naive_quantile(z, q) for q in (0.05, 0.25, 0.5, 0.75, 0.95)}
    found[f"{name} > 0"] = sum(value > 0 for value in z) / len(z)
    steps = naive_moments(naive_differences(z))
    return found | {f"{name} step {shape}": value for shape, value in zip(SHAPES, steps, strict=True)}


def naive_kinds(told: Lists) -> Profile:
    """Entropies up to 1, up to 2.5, up to 4 and above; nothing but its share of a kind with fewer than 3 tokens."""
    found: Profile = {}
    edges = (-math.inf, 1.0, 2.5, 4.0, math.inf)
    for kind in range(4):
        own = [i for i, h in enumerate(told["entropy"]) if edges[kind] < h <= edges[kind + 1]]
        name, enough, count = f"entropy kind {kind}", len(own) >= 3, max(len(own), 1)
        z = [told["normalised surprisal"][i] for i in own]
        ranks = [round(math.exp(told["log rank"][i])) for i in own]
        found[f"{name} share"] = len(own) / len(told["entropy"])
        found[f"{name} surprisal"] = math.fsum(told["surprisal"][i] for i in own) / count * enough
        found[f"{name} normalised surprisal"] = math.fsum(z) / count * enough
        found[f"{name} its std"] = statistics.pstdev(z) if enough else 0.0
        found[f"{name} rank 1"] = ranks.count(1) / count * enough
        found[f"{name} rank > 100"] = sum(rank > 100 for rank in ranks) / count * enough
    return found


def naive_diversity(told: Lists) -> Profile:
    """Lastde's five scales with ten bins a token; of 7 tokens and fewer, the largest scale has no cosine."""
    count = len(told["surprisal"])

    def entropy(name: str, scale: int) -> float:
        return naive_diversity_entropy(told[name], scale, 10 * count) if count >= 8 else 0.0

    own = [entropy("own log-probability", scale) for scale in (1, 2, 3, 4, 5)]
    found = {f"diversity entropy {scale}": value for scale, value in enumerate(own, 1)}
    found["diversity entropy std"] = statistics.stdev(own)
    return found | {f"normalised diversity entropy {scale}": entropy("normalised", scale) for scale in (1, 3, 5)}


def naive_thirds(told: Lists) -> Profile:
    found: Profile = {}
    for name in THREE:
        values = told[name]
        for number in (1, 2, 3):
            own = values[round(len(values) * (number - 1) / 3) : round(len(values) * number / 3)]
            less = statistics.fmean(own) - statistics.fmean(values) if own else 0.0
            found[f"{name} of third {number} less the whole"] = less
    return found


def naive_stretches(told: Lists) -> Profile:
    """Of 16 tokens, or of half of a text that has fewer than 32."""
    found: Profile = {}
    for name in ("normalised surprisal", "surprisal"):
        means = naive_window_means(told[name], min(16, max(len(told[name]) // 2, 1)))
        found[f"{name} of stretches std"] = naive_moments(means)[1]
        found[f"{name} of stretches lowest"] = min(means)
        found[f"{name} of stretches highest"] = max(means)
    return found


def naive_persistence(told: Lists) -> Profile:
    """Deviation of windows' means over what that of independent tokens would be; of more than two windows."""
    found: Profile = {}
    for name in THREE:
        deviation = statistics.pstdev(told[name])
        for width in (4, 8, 16, 32):
            enough = len(told[name]) > 2 * width and deviation > 0
            expected = max(deviation, 1e-6) / math.sqrt(width)
            means = naive_window_means(told[name], width)
            found[f"{name} persistence {width}"] = statistics.pstdev(means) / expected if enough else 0.0
    return found


def naive_ratios(told: Lists) -> Profile:
    s, h, r = told["surprisal"], told["entropy"], told["log rank"]
    mean, std = statistics.fmean, statistics.pstdev
    return {
        "curvature": (math.fsum(h) - math.fsum(s)) / math.sqrt(math.fsum(d * d for d in told["deviation"])),
        "surprisal / log rank": mean(s) / max(mean(r), 1e-3),
        "surprisal / entropy": max(mean(s), 1e-6) / max(mean(h), 1e-6),
        "surprisal std / mean": std(s) / max(mean(s), 1e-6),
        "entropy std / mean": std(h) / max(mean(h), 1e-6),
        "log rank std / mean": std(r) / max(mean(r), 1e-6),
        "surprisal std / entropy std": std(s) / max(std(h), 1e-6),
    }


def naive_relations(told: Lists) -> Profile:
    pairs = (
        *(
            "surprisal and entropy",
            "|normalised| and entropy",
            "normalised and entropy",
            "normalised and place",
            "entropy and place",
        ),
        *(
            "likelier mass and entropy",
            "highest and own log-probability",
            "log rank and entropy",
            "log rank and surprisal",
        ),
        *("log rank and normalised", "likelier mass and surprisal", "deviation and surprisal", "deviation and entropy"),
    )
    found = {
        f"correlation of {pair}": naive_correlation(*(told[name] for name in pair.split(" and "))) for pair in pairs
    }
    s, h, size = told["surprisal"], told["entropy"], told["|normalised|"]
    steps = [abs(step) for step in naive_differences(s)]
    return found | {
        "correlation of surprisal and entropy before": naive_correlation(s[1:], h[:-1]),
        "correlation of surprisal and entropy after": naive_correlation(s[:-1], h[1:]),
        "correlation of |surprisal step| and entropy": naive_correlation(steps, h[1:]),
        "correlation of |normalised| and itself before": naive_correlation(size[1:], size[:-1]),
    }


def naive_repetition(told: Lists) -> Profile:
    return {
        f"{name} autocorrelation {lag}": naive_autocorrelation(told[name], lag)
        for name in (*THREE, "log rank")
        for lag in (1, 2, 3, 5)
    }


def naive_concentration(told: Lists) -> Profile:
    s, h = told["surprisal"], told["entropy"]
    mean = max(statistics.fmean(s), 1e-6)
    found = {f"{name} Gini coefficient": naive_gini(told[name]) for name in ("surprisal", "entropy", "log rank")}
    return found | {
        "surprisal above its lowest Gini coefficient": naive_gini([value - min(s) for value in s]),
        "surprisal > 2 means": sum(value > 2 * mean for value in s) / len(s),
        "surprisal > 3 means": sum(value > 3 * mean for value in s) / len(s),
        "surprisal median / mean": statistics.median(s) / mean,
        "entropy median / mean": statistics.median(h) / max(statistics.fmean(h), 1e-6),
        "surprisal highest / mean": max(s) / mean,
        "surprisal quantile 0.9 / mean": naive_quantile(s, 0.9) / mean,
    }


def naive_spectra(told: Lists) -> Profile:
    edges = (0.0, 0.03, 0.1, 0.25)
    shares = {name: naive_spectral_shares(told[name], edges) for name in THREE}
    return {f"{name} spectrum {band}": share for name in THREE for band, share in enumerate(shares[name])}


def naive_shapes(told: Lists) -> Profile:
    found: Profile = {}
    for name in ("surprisal", "entropy", "log rank", "root of surprisal", "likelier mass"):
        _, _, found[f"{name} skewness"], found[f"{name} kurtosis"] = naive_moments(told[name])
    return found


def profile(item: TokenFeatures) -> Profile:
    return dict(zip(PROFILE_COLUMNS, metric_profile(item).tolist(), strict=True))


def check_profile(item: TokenFeatures, rounding: float = 1e-9) -> None:
    expected, found = naive_profile(item), profile(item)
    assert set(expected) == set(PROFILE_COLUMNS)
    wrong = {n: (v, expected[n]) for n, v in found.items() if v != pytest.approx(expected[n], rel=1e-9, abs=rounding)}
    assert not wrong


def with_metrics(item: TokenFeatures, **values: float | np.ndarray) -> TokenFeatures:
    """A copy in which some metrics of every predicted token, or of all of them in turn, are others."""
    metrics = item.metrics.copy()
    for name, value in values.items():
        metrics[:, METRIC_NAMES.index(name)] = value
    return replace(item, metrics=metrics)


def even(n_tokens: int) -> TokenFeatures:
    """Of tokens that are all alike: none of these has an exact float32."""
    alike = {"log_prob": -1.7, "entropy": 2.1, "max_log_prob": -0.4, "log_rank": math.log(3), "top_p": 0.3}
    return with_metrics(document(1, 0, n_tokens), **alike, log_prob_variance=1.3)


def certain(n_tokens: int) -> TokenFeatures:
    """Of tokens that nothing else could have been."""
    return with_metrics(document(1, 0, n_tokens), **dict.fromkeys(METRIC_NAMES, 0.0))


def unspread(n_tokens: int) -> TokenFeatures:
    """Of predictions whose log-probabilities do not vary, or do by less than nothing, as rounding may have it."""
    variance = np.where(np.arange(n_tokens - 1) % 2, 0.0, -1e-7)
    return with_metrics(document(2, 1, n_tokens), log_prob_variance=variance)


def likeliest(n_tokens: int) -> TokenFeatures:
    """Of tokens that are each the likeliest, of predictions that are equally open: no spread to divide by."""
    return with_metrics(document(2, 1, n_tokens), log_rank=0.0, entropy=1.6)


def test_names_are_unique_and_the_vector_is_float64() -> None:
    assert len(set(PROFILE_COLUMNS)) == len(PROFILE_COLUMNS)
    found = metric_profile(document(3, 0, 30))
    assert (found.dtype, found.shape) == (np.float64, (len(PROFILE_COLUMNS),))


@pytest.mark.parametrize("number", [3, 4])
@pytest.mark.parametrize("n_tokens", [14, 40, 256, 257])
def test_columns_are_those_of_plain_loops(n_tokens: int, number: int) -> None:
    check_profile(document(number, number % 2, n_tokens))


SHORT = [2, 3, 4, 5, 6, 8, 9, 10]


@pytest.mark.parametrize("n_tokens", SHORT)
def test_columns_of_short_documents_are_those_of_plain_loops(n_tokens: int) -> None:
    check_profile(document(7, 1, n_tokens))


@pytest.mark.parametrize("n_tokens", [4, 14, 40, 256])
@pytest.mark.parametrize("made", [certain, unspread, likeliest])
def test_columns_of_degenerate_predictions_are_those_of_plain_loops(made: Made, n_tokens: int) -> None:
    check_profile(made(n_tokens))


@pytest.mark.parametrize("n_tokens", [4, 14, 40, 256])
def test_columns_of_even_documents_are_those_of_plain_loops(n_tokens: int) -> None:
    check_profile(even(n_tokens), rounding=1e-7)  # what is left of the means of windows, over the least deviation


@pytest.mark.parametrize("n_tokens", [*range(2, 20), 31, 66, 513])
@pytest.mark.parametrize("made", [even, certain, unspread, likeliest, lambda n_tokens: document(5, 0, n_tokens)])
def test_every_vector_is_finite(made: Made, n_tokens: int) -> None:
    assert np.isfinite(metric_profile(made(n_tokens))).all()


OF_FOUR = ("diversity entropy", "persistence", "autocorrelation 3", "autocorrelation 5")
OF_TWO = ("autocorrelation", "before", "after", "|surprisal step|", "spectrum", "normalised surprisal step std")
OF_ONE = ("correlation", "spectrum", "std", "skewness", "kurtosis", "step", "Gini")


@pytest.mark.parametrize(("n_tokens", "zeros"), [(2, OF_FOUR + OF_TWO + OF_ONE), (3, OF_FOUR + OF_TWO), (5, OF_FOUR)])
def test_what_a_text_is_too_short_for_is_0(n_tokens: int, zeros: tuple[str, ...]) -> None:
    found = profile(document(7, 1, n_tokens))
    for what in zeros:
        own = {name: value for name, value in found.items() if what in name}
        assert own == dict.fromkeys(own, 0)
        assert own
    of_kinds = [value for name, value in found.items() if "entropy kind" in name and "share" not in name]
    assert n_tokens == 5 or not any(of_kinds)


def test_tokens_that_are_all_alike_have_no_course_no_relations_and_no_shape() -> None:
    # No persistence up to what rounding leaves of the means of windows.
    zeros = ("correlation", "spectrum", "Gini", "skewness", "kurtosis", "std", "less the whole", "persistence")
    found = profile(even(300))
    for name, value in found.items():
        if any(what in name for what in zeros):
            assert value == pytest.approx(0, abs=1e-6), name
    assert found["surprisal highest / mean"] == found["surprisal median / mean"] == pytest.approx(1)
    assert found["entropy kind 1 share"] == 1


def test_rank_100_is_not_above_100() -> None:
    ranks = np.array([1, 99, 100, 100, 100, 101, 102, 1000, 40_000, 2])
    item = with_metrics(document(1, 0, 11), entropy=0.5, log_rank=np.log(ranks))
    found = profile(item)
    assert found["entropy kind 0 rank 1"] == pytest.approx(0.1)
    assert found["entropy kind 0 rank > 100"] == pytest.approx(0.4)


def test_kinds_of_entropy_end_at_1_and_2_5_and_4_and_have_3_tokens_at_least() -> None:
    item = with_metrics(document(1, 0, 11), entropy=np.array([1.0, 1.0, 0.0, 1.1, 2.5, 2.6, 4.0, 3.0, 4.1, 9.0]))
    found = profile(item)
    assert [found[f"entropy kind {kind} share"] for kind in range(4)] == pytest.approx([0.3, 0.2, 0.3, 0.2])
    assert [found[f"entropy kind {kind} surprisal"] > 0 for kind in range(4)] == [True, False, True, False]


ORDERED = (
    *("step", "diversity", "third", "stretches", "persistence", "autocorrelation", "spectrum"),
    *("place", "before", "after"),
)


def test_tokens_in_another_order_change_the_columns_of_order_and_no_others() -> None:
    item = document(6, 0, 512)
    shuffled = replace(item, metrics=np.random.default_rng(0).permutation(item.metrics))
    before, after = profile(item), profile(shuffled)
    same = {name for name in PROFILE_COLUMNS if after[name] == pytest.approx(before[name], rel=1e-9, abs=1e-12)}
    assert same == {name for name in PROFILE_COLUMNS if not any(what in name for what in ORDERED)}


def test_a_text_read_backwards_swaps_its_ends_and_turns_its_slopes() -> None:
    item = document(6, 0, 90)
    before, after = profile(item), profile(replace(item, metrics=item.metrics[::-1]))
    swapped = {"third 1": "third 3", "third 3": "third 1", "entropy before": "entropy after"}
    swapped["entropy after"] = "entropy before"
    for name, value in after.items():
        if name == "correlation of |surprisal step| and entropy":
            continue  # the entropy is that of the token stepped to: of another one, backwards
        origin = next((name.replace(old, new) for old, new in swapped.items() if old in name), name)
        turned = name.endswith(("and place", "step mean", "step skewness"))
        assert value == pytest.approx(before[origin] * (-1 if turned else 1), rel=1e-9, abs=1e-12), name


def test_surprise_and_expectation_doubled_change_levels_alone() -> None:
    """All that is in nats doubled: what doubles with it is a level, what stays is a relation."""
    item = document(6, 1, 120)
    item = with_metrics(item, log_prob_variance=np.maximum(columns_of(item)["log_prob_variance"], 0.01))
    names = {"log_prob": 2, "entropy": 2, "max_log_prob": 2, "log_prob_variance": 4}
    doubled = with_metrics(item, **{name: factor * np.array(columns_of(item)[name]) for name, factor in names.items()})
    before, after = profile(item), profile(doubled)
    levels = ("surprisal of third", "surprisal of stretches", "entropy of third", "surprisal / log rank")
    for name, value in after.items():
        if "entropy kind" in name:
            continue  # these are told apart by nats
        factor = 2 if any(name.startswith(level) for level in levels) else 1
        assert value == pytest.approx(before[name] * factor, rel=1e-9, abs=1e-12), name


def test_persistence_of_noise_is_1_and_that_of_a_drift_grows_with_the_window() -> None:
    item = document(9, 0, 5001)
    noise = {name: value for name, value in profile(item).items() if "persistence" in name}
    assert list(noise.values()) == pytest.approx([1] * 12, abs=0.2)
    drift = profile(replace(item, metrics=item.metrics[np.argsort(item.metrics[:, 0])]))
    assert [drift[f"surprisal persistence {width}"] for width in (4, 32)] == pytest.approx(
        [math.sqrt(4), math.sqrt(32)], rel=0.05
    )
