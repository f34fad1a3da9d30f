import hashlib
import itertools
import json

import numpy as np
import pytest
from safetensors.numpy import save

from detect.calibration import UNMEASURED_CAUTION, Calibration
from features.errors import DetectorError, UsageError

PROVENANCE = {"corpora": ["essays"], "weights_sha256": "ab12", "created": "2026-01-02T03:04:05Z"}


def naive_p_value(human, score):
    return (1 + sum(other >= score for other in human)) / (len(human) + 1)


def make_human_scores():
    rng = np.random.default_rng(0)
    yield [0.5]
    yield [2.0, 2.0, 2.0]
    yield rng.normal(size=19).tolist()
    yield rng.integers(-3, 4, size=99).astype(float).tolist()


def probes(human):
    """Every score at, just above and just below a human one, and the far ends."""
    around = [np.nextafter(score, end) for score in human for end in (-np.inf, np.inf)]
    return np.array([*human, *around, -1e9, 1e9, -np.inf, np.inf])


@pytest.mark.parametrize("human", list(make_human_scores()))
def test_p_values_count_the_human_scores_at_or_above_and_the_text_itself(human):
    scores = probes(human)
    expected = [naive_p_value(human, score) for score in scores]
    assert Calibration(human, {}).p_values(scores).tolist() == expected


@pytest.mark.parametrize("human", list(make_human_scores()))
def test_threshold_flags_exactly_the_scores_whose_p_value_is_at_most_the_rate(human):
    calibration = Calibration(human, {})
    scores = probes(human)
    p_values = calibration.p_values(scores)
    count = len(human)
    for fpr in [0.05, 0.1, 0.29, 0.5, 0.95, *((1 + rank) / (count + 1) for rank in range(count))]:
        if fpr >= calibration.smallest_fpr:
            flagged = scores >= calibration.threshold(fpr)
            assert flagged.tolist() == (p_values <= fpr).tolist(), fpr


def test_human_texts_get_each_p_value_equally_often():
    # Left out in turn, the texts of a set of 10 without ties get p = 1/10, 2/10, ..., 1, once each.
    human = np.random.default_rng(1).normal(size=10)
    p_values = [Calibration(np.delete(human, i), {}).p_values(human[i : i + 1])[0] for i in range(10)]
    np.testing.assert_allclose(np.sort(p_values), np.arange(1, 11) / 10)


def test_scores_are_sorted_copied_and_read_only():
    human = np.array([3.0, 1.0, 2.0], dtype=np.float32)
    calibration = Calibration(human, {})
    human[:] = 0
    assert calibration.scores.tolist() == [1.0, 2.0, 3.0]
    assert calibration.scores.dtype == np.float64
    with pytest.raises(ValueError, match="read-only"):
        calibration.scores[0] = 5.0


def grouped(seed=0):
    """Human scores of three domains, one of them small, at many lengths."""
    rng = np.random.default_rng(seed)
    domains = np.repeat(["news", "essay", "tiny"], [3600, 4500, 40])
    n_tokens = rng.integers(16, 400, len(domains))
    return rng.normal(size=len(domains)).round(1) + (domains == "essay"), domains, n_tokens


def naive_band(length):
    return sum(length >= start for start in (48, 96, 192))


def naive_grouped_p_value(scores, domains, n_tokens, score, length):
    """Plain loops: the largest p-value of the band's two domains, times the caution of so few.

    The small domain joins the smallest large one.
    """
    members = {"news": [], "essay": [], "tiny": []}
    for human, domain, other in zip(scores, domains, n_tokens, strict=True):
        if naive_band(other) == naive_band(length):
            members[domain].append(human)
    smallest = min(("news", "essay"), key=lambda name: len(members[name]))
    members[smallest] += members.pop("tiny")
    return min(1.0, UNMEASURED_CAUTION * max(naive_p_value(human, score) for human in members.values()))


def test_p_values_by_group_are_the_largest_of_the_domains_in_the_band_of_the_text():
    scores, domains, n_tokens = grouped()
    calibration = Calibration(scores, {}, domains, n_tokens)
    lengths = [16, 47, 48, 95, 96, 191, 192, 5000]
    for probe in (-1.0, 0.3, 1.5, 2.5, 9.0):
        expected = [naive_grouped_p_value(scores, domains, n_tokens, probe, length) for length in lengths]
        assert calibration.p_values([probe] * len(lengths), lengths).tolist() == expected
        assert calibration.p_values([probe]).tolist() == [max(expected)]


def test_thresholds_by_group_flag_exactly_what_the_p_values_do():
    scores, domains, n_tokens = grouped()
    calibration = Calibration(scores, {}, domains, n_tokens)
    tested = np.repeat(probes(np.unique(scores).tolist()), 8)
    lengths = np.tile([16, 47, 48, 95, 96, 191, 192, 5000], len(tested) // 8)
    for fpr in (0.01, 0.05, 0.5):
        flagged = tested >= calibration.thresholds(fpr, lengths)
        assert flagged.tolist() == (calibration.p_values(tested, lengths) <= fpr).tolist()
        assert calibration.threshold(fpr) == calibration.band_thresholds(fpr).max()


def test_a_band_with_few_texts_is_judged_by_the_nearest_with_many():
    scores = np.concatenate([np.arange(200.0), np.arange(1000.0, 1200.0), [-5.0]])
    calibration = Calibration(scores, {}, None, np.repeat([20, 100, 300], [200, 200, 1]))
    p_values = calibration.p_values([199.0, 199.0, 1199.0, 1199.0], [20, 60, 100, 300])
    assert p_values.tolist() == [2 / 201, 2 / 201, 2 / 201, 2 / 201]


def test_few_texts_are_judged_by_the_band_with_most_since_a_text_has_one_score_in_each():
    calibration = Calibration([1.0, 2.0, 3.0, 10.0], {}, None, np.array([100, 100, 100, 20]))
    assert calibration.p_values([2.5] * 4, [20, 60, 100, 300]).tolist() == [2 / 4] * 4
    assert calibration.smallest_fpr == 1 / 4


def test_human_texts_of_any_one_domain_and_length_are_flagged_at_most_at_the_rate():
    scores, domains, n_tokens = grouped()
    fresh, others, lengths = grouped(seed=1)
    flagged = Calibration(scores, {}, domains, n_tokens).p_values(fresh, lengths) <= 0.1
    for name in ("news", "essay"):
        for band in range(4):
            chosen = (others == name) & np.array([naive_band(length) == band for length in lengths])
            assert flagged[chosen].mean() < 0.05 + 3 * np.sqrt(0.05 * 0.95 / chosen.sum() + 0.05 * 0.95 / 300)


def normal_domains(shifts, count=2000, seed=2):
    """Human scores of normal domains with those means, and which domain each is of."""
    rng = np.random.default_rng(seed)
    scores = np.concatenate([rng.normal(shift, 1, count) for shift in shifts])
    return scores, np.repeat([f"domain {number}" for number in range(len(shifts))], count)


def naive_caution(scores, domains, bands):
    """Plain loops: the first factor with which others flag at most 3 x 1% and 3 x 5% of each domain in each band."""
    for factor in (1, 2, 3, 4):
        worst = 0.0
        for name, band in itertools.product(sorted(set(domains)), sorted(set(bands))):
            cells = {other: scores[(domains == other) & (bands == band)] for other in set(domains)}
            p_values = [
                factor
                * max((1 + (cell >= score).sum()) / (len(cell) + 1) for other, cell in cells.items() if other != name)
                for score in cells[name]
            ]
            worst = max(worst, *(sum(p <= rate for p in p_values) / len(p_values) / rate for rate in (0.01, 0.05)))
        if worst <= 3:
            return factor
    return 4


@pytest.mark.parametrize("shifts", [(0, 0, 0), (0, 0, 0.5), (0, 0, 0.7), (0, 0, 0.85), (0, 0.2, 2.0)])
def test_the_caution_is_what_each_domain_needs_that_the_others_judge(shifts):
    scores, domains = normal_domains(shifts, 400)
    assert Calibration(scores, {}, domains).caution == naive_caution(scores, domains, np.zeros(len(scores)))


def test_the_caution_is_that_of_the_band_that_needs_most():
    scores, domains = normal_domains((0, 0, 0), 600)
    n_tokens = np.tile(np.repeat([30, 60, 300], 200), 3)
    scores[(domains == "domain 2") & (n_tokens == 60)] += 0.7
    bands = np.searchsorted([48, 96, 192], n_tokens, side="right")
    found = Calibration(scores, {}, domains, n_tokens).caution
    assert found == naive_caution(scores, domains, bands) > 1
    assert Calibration(scores[bands != 1], {}, domains[bands != 1], n_tokens[bands != 1]).caution == 1


def test_domains_of_few_texts_may_need_a_caution_that_leaves_no_p_value_of_one_percent():
    scores, domains = normal_domains((0, 0, 3.0), 250)
    calibration = Calibration(scores, {}, domains)
    assert calibration.caution == 4
    with pytest.raises(UsageError, match=r"0.01 cannot be promised from 250 human texts: the smallest is 0.0159363"):
        calibration.check_fpr(0.01)


def test_domains_that_differ_more_need_more_caution():
    drawn = [normal_domains(shifts) for shifts in ((0, 0, 0), (0, 0, 0.6), (0, 0, 3.0))]
    none, some, most = (Calibration(scores, {}, domains).caution for scores, domains in drawn)
    assert 1 == none < some < most == 4


def test_p_values_and_thresholds_are_of_the_caution_of_the_domains():
    scores, domains = normal_domains((0, 0, 0.6))
    calibration = Calibration(scores, {}, domains)
    plain = Calibration(scores, {}, domains, caution=1)
    assert calibration.caution > plain.caution == 1
    np.testing.assert_allclose(calibration.p_values([2.5]), calibration.caution * plain.p_values([2.5]))
    assert calibration.threshold(0.04) == plain.threshold(0.04 / calibration.caution)


def test_the_caution_of_few_domains_cannot_be_told():
    scores, domains = normal_domains((0, 0))
    assert Calibration(scores, {}, domains).caution == 2
    assert Calibration(scores, {}).caution == 1


def test_a_grouped_calibration_comes_back_from_its_folder(tmp_path):
    scores, domains, n_tokens = grouped()
    calibration = Calibration(scores, PROVENANCE, domains, n_tokens)
    calibration.save(tmp_path)
    loaded = Calibration.load(tmp_path)
    for name in ("scores", "domains", "n_tokens"):
        assert getattr(loaded, name).tolist() == getattr(calibration, name).tolist()
    assert loaded.caution == calibration.caution == 2
    np.testing.assert_array_equal(loaded.band_thresholds(0.05), calibration.band_thresholds(0.05))


def test_a_caution_that_was_given_comes_back_and_one_that_was_not_saved_is_measured(tmp_path):
    scores, domains = normal_domains((0, 0, 0))
    Calibration(scores, PROVENANCE, domains, caution=3).save(tmp_path)
    assert Calibration.load(tmp_path).caution == 3
    path = tmp_path / "calibration.json"
    record = json.loads(path.read_text())
    del record["caution"]
    path.write_text(json.dumps(record))
    assert Calibration.load(tmp_path).caution == 1
    path.write_text(json.dumps(record | {"caution": -1}))
    with pytest.raises(DetectorError, match="expected a caution of 1 or more, got -1"):
        Calibration.load(tmp_path)


def test_the_smallest_rate_is_that_of_the_smallest_group():
    scores, domains, n_tokens = grouped()
    calibration = Calibration(scores, {}, domains, n_tokens)
    counts = [
        sum(naive_band(length) == band and name in names for length, name in zip(n_tokens, domains, strict=True))
        for band in range(4)
        for names in (("news", "tiny"), ("essay",))
    ]
    assert calibration.smallest_fpr == pytest.approx(2 / (min(counts) + 1), rel=0.3)  # "tiny" may join either
    with pytest.raises(ValueError, match="expected domains of 2 texts, got 1"):
        Calibration([1.0, 2.0], {}, np.array(["a"]))


def test_no_rate_below_one_in_n_plus_one_is_promised():
    calibration = Calibration(np.arange(99.0), {})
    assert calibration.smallest_fpr == 0.01
    calibration.check_fpr(0.01)
    with pytest.raises(UsageError, match=r"rate of 0.009 cannot be promised from 99 human .* smallest is 0.01"):
        calibration.check_fpr(0.009)
    with pytest.raises(UsageError, match=r"from 99 human texts"):
        calibration.threshold(0.001)


@pytest.mark.parametrize("fpr", [0.0, 1.0, -0.1, 5.0, float("nan")])
def test_rates_outside_zero_and_one_are_refused(fpr):
    with pytest.raises(UsageError, match=f"between 0 and 1, got {fpr}"):
        Calibration([1.0, 2.0], {}).check_fpr(fpr)


def test_nan_scores_have_no_p_value():
    with pytest.raises(ValueError, match="2 of 3 scores are NaN"):
        Calibration([1.0], {}).p_values([np.nan, 0.0, np.nan])


def test_calibrations_without_finite_scores_are_refused():
    with pytest.raises(ValueError, match=r"at least 1 human score, got shape \(0,\)"):
        Calibration([], {})
    with pytest.raises(ValueError, match="2 of 3 calibration scores are not finite"):
        Calibration([1.0, np.nan, np.inf], {})


def test_saved_and_loaded_calibration_is_the_same_to_the_bit(tmp_path):
    human = np.random.default_rng(2).normal(size=101)
    Calibration(human, PROVENANCE).save(tmp_path)
    loaded = Calibration.load(tmp_path)
    assert loaded.scores.tobytes() == np.sort(human).tobytes()
    assert loaded.provenance == PROVENANCE
    assert json.loads((tmp_path / "calibration.json").read_text())["count"] == 101


def test_calibration_beside_a_detector_leaves_its_card_alone(tmp_path):
    (tmp_path / "detector.json").write_text("{}")
    Calibration([1.0], PROVENANCE).save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "calibration.json",
        "calibration.safetensors",
        "detector.json",
    ]
    assert (tmp_path / "detector.json").read_text() == "{}"


@pytest.mark.parametrize("name", ["calibration.json", "calibration.safetensors"])
def test_a_missing_file_is_named(tmp_path, name):
    Calibration([1.0], PROVENANCE).save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(DetectorError, match=f"cannot read .*{name}"):
        Calibration.load(tmp_path)


def test_changed_scores_are_refused(tmp_path):
    Calibration([1.0, 2.0], PROVENANCE).save(tmp_path)
    path = tmp_path / "calibration.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    found = hashlib.sha256(content).hexdigest()
    with pytest.raises(DetectorError, match=f"has SHA-256 {found}, its record says"):
        Calibration.load(tmp_path)


def test_another_format_version_is_refused(tmp_path):
    Calibration([1.0], PROVENANCE).save(tmp_path)
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 9}))
    with pytest.raises(DetectorError, match="format version 9, this program reads 1; calibrate again"):
        Calibration.load(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", save({"other": np.ones(2)}), save({"scores": np.array([np.nan])}), save({"scores": np.ones(0)})],
)
def test_files_that_hold_no_calibration_are_refused(tmp_path, content):
    Calibration([1.0], PROVENANCE).save(tmp_path)
    (tmp_path / "calibration.safetensors").write_bytes(content)
    path = tmp_path / "calibration.json"
    record = {**json.loads(path.read_text()), "scores_sha256": hashlib.sha256(content).hexdigest()}
    path.write_text(json.dumps(record))
    with pytest.raises(DetectorError, match=r"calibration.safetensors holds no calibration"):
        Calibration.load(tmp_path)
