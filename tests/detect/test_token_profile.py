"""Every column against plain loops in float64."""

import math
import statistics
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from detect.token_profile import TOKEN_COLUMNS, token_profile
from features.token_features import METRIC_NAMES, TokenFeatures
from features.token_kinds import TOKEN_KINDS
from tests.detect.made_up import document
from tests.detect.test_pooled import columns_of
from tests.detect.test_sequence_statistics import naive_correlation

GROUPS = (*TOKEN_KINDS, "new token", "token seen before", "token after an end of sentence")


def groups_of(item: TokenFeatures) -> list[set[str]]:
    """The groups that each predicted token is in."""
    ids, kinds = item.token_ids.tolist(), item.kinds.tolist()
    found = []
    for place in range(1, len(ids)):
        own = {TOKEN_KINDS[kinds[place]], "token seen before" if ids[place] in ids[:place] else "new token"}
        if TOKEN_KINDS[kinds[place - 1]] == "end of sentence":
            own.add("token after an end of sentence")
        found.append(own)
    return found


def naive(item: TokenFeatures) -> dict[str, float]:
    columns = columns_of(item)
    surprisal, entropy = [-value for value in columns["log_prob"]], columns["entropy"]
    spread = [math.sqrt(max(value, 1e-4)) for value in columns["log_prob_variance"]]
    normalised = [(h - s) / d for s, h, d in zip(surprisal, entropy, spread, strict=True)]
    groups = groups_of(item)
    rarity = [math.log(number + 300) for number in item.token_ids.tolist()[1:]]
    new = [float("new token" in own) for own in groups]
    so_far = [math.fsum(new[: place + 1]) / (place + 1) for place in range(len(new))]
    place = [float(number) for number in range(len(new))]
    found = {}
    for name, values in (("surprisal", surprisal), ("entropy", entropy)):
        for group in GROUPS:
            own = [value for value, its in zip(values, groups, strict=True) if group in its]
            less = statistics.fmean(own) - statistics.fmean(values) if len(own) >= 3 else 0.0
            found[f"{name} of each {group} less the whole"] = less
    for name, values in (("surprisal", surprisal), ("entropy", entropy), ("normalised", normalised), ("place", place)):
        found[f"correlation of {name} and rarity"] = naive_correlation(values, rarity)
    steps = ([b - a for a, b in pairwise(values)] for values in (surprisal, rarity))
    return found | {
        "correlation of surprisal step and rarity step": naive_correlation(*steps),
        "rarity std": statistics.pstdev(rarity),
        "correlation of surprisal and share new so far": naive_correlation(surprisal, so_far),
        "correlation of normalised and new": naive_correlation(normalised, new),
        "correlation of entropy and new": naive_correlation(entropy, new),
    }


def profile(item: TokenFeatures) -> dict[str, float]:
    return dict(zip(TOKEN_COLUMNS, token_profile(item).tolist(), strict=True))


def repeating(number: int, n_tokens: int) -> TokenFeatures:
    """A document that uses 12 tokens over and over, so that all groups have some."""
    item = document(number, number % 2, n_tokens)
    ids = np.random.default_rng(number).integers(0, 12, n_tokens)
    return replace(item, token_ids=(ids * 971).astype(np.int32), kinds=(ids % len(TOKEN_KINDS)).astype(np.uint8))


@pytest.mark.parametrize("n_tokens", [2, 3, 4, 5, 7, 14, 40, 257])
@pytest.mark.parametrize("number", [3, 4])
def test_columns_are_those_of_plain_loops(number: int, n_tokens: int) -> None:
    for item in (document(number, number % 2, n_tokens), repeating(number, n_tokens)):
        expected, found = naive(item), profile(item)
        assert set(expected) == set(TOKEN_COLUMNS)
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_names_are_unique_and_the_vector_is_finite_float64() -> None:
    assert len(set(TOKEN_COLUMNS)) == len(TOKEN_COLUMNS)
    for n_tokens in range(2, 12):
        found = token_profile(document(5, 0, n_tokens))
        assert found.dtype == np.float64
        assert np.isfinite(found).all()


def test_levels_do_not_show() -> None:
    """Every token a nat more surprising, in a text that is a nat less certain: the same profile."""
    item = repeating(6, 200)
    metrics = item.metrics.astype(np.float64)
    metrics[:, METRIC_NAMES.index("log_prob")] -= 1
    metrics[:, METRIC_NAMES.index("entropy")] += 1
    assert token_profile(replace(item, metrics=metrics)) == pytest.approx(token_profile(item), abs=1e-5)


def test_a_text_of_one_token_again_and_again_has_nothing_new_and_no_relations() -> None:
    item = document(8, 0, 60)
    found = profile(replace(item, token_ids=np.full(60, 17, np.int32), kinds=np.zeros(60, np.uint8)))
    assert found == pytest.approx(dict.fromkeys(TOKEN_COLUMNS, 0.0), abs=1e-12)


def test_a_group_of_two_tokens_says_nothing_and_one_of_three_does() -> None:
    item = document(9, 0, 30)
    kinds = np.full(30, TOKEN_KINDS.index("rare word"), np.uint8)
    kinds[[5, 9]] = TOKEN_KINDS.index("comma")
    column = "surprisal of each comma less the whole"
    assert profile(replace(item, kinds=kinds))[column] == 0
    kinds[12] = TOKEN_KINDS.index("comma")
    assert profile(replace(item, kinds=kinds))[column] != 0
