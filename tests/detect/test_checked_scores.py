"""Scores of detectors, those of one's own among them: what is taken, and what is refused in words."""

import numpy as np
import pytest
import torch

from detect.checked_scores import checked_scores
from detect.zero_shot import ZERO_SHOT
from features.errors import DetectorError, UsageError

TEXTS = ["one", "two", "three"]


class Own:
    """A detector of somebody's that gives or raises what the test says."""

    name = "mine"
    reads = "text"

    def __init__(self, given):
        self.given = given

    def score(self, texts):
        if isinstance(self.given, Exception):
            raise self.given
        return self.given


@pytest.mark.parametrize(
    "given", [[1, 2.5, 3], (1, 2.5, 3), np.array([1, 2.5, 3], dtype=np.float32), torch.tensor([1, 2.5, 3])]
)
def test_lists_and_arrays_of_any_number_type_become_float64(given):
    scores = checked_scores(Own(given), TEXTS)
    assert (scores.dtype, scores.tolist()) == (np.float64, [1, 2.5, 3])


def test_nan_and_infinities_are_left_to_those_who_judge():
    assert np.isnan(checked_scores(Own([np.nan, np.inf, 1.0]), TEXTS)).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1.0, 2.0], r"of detector mine .* expected 3 numbers, one for each of 3 texts, .* got list of shape \(2,\)"),
        (np.zeros((3, 1)), r"got ndarray of shape \(3, 1\)"),
        (None, r"got NoneType of shape \(\)"),
        ([1.0, 2.0, "high"], r"are no numbers: expected 3 numbers.* got list \(ValueError: could not convert"),
        ([[1.0], [1.0, 2.0], [3.0]], r"are no numbers.* got list \(ValueError"),
    ],
)
def test_scores_of_another_count_shape_or_kind_are_refused_and_the_detector_named(given, message):
    with pytest.raises(DetectorError, match=message):
        checked_scores(Own(given), TEXTS)


def test_what_a_class_of_ones_own_raises_is_told_with_its_place_and_kept_as_the_cause():
    cause = KeyError("weights")
    with pytest.raises(
        DetectorError, match=r"mine failed on 3 texts: KeyError: 'weights' \(.*test_checked_scores.py, line \d+\)"
    ) as raised:
        checked_scores(Own(cause), TEXTS)
    assert raised.value.__cause__ is cause


def test_an_error_made_to_be_read_goes_on_as_it_is():
    with pytest.raises(UsageError, match="as I said"):
        checked_scores(Own(UsageError("as I said")), TEXTS)


def test_what_our_own_detectors_raise_is_not_put_down_to_the_user():
    with pytest.raises(AttributeError):
        checked_scores(ZERO_SHOT["log-likelihood"](), ["a text where features belong"])
