"""Scores at every length that a document reaches: against scoring each prefix alone."""

from pathlib import Path

import pytest

from detect.trained import band_lengths, band_scores
from detect.zero_shot import ZERO_SHOT
from tests.detect.made_up import labelled


@pytest.mark.parametrize(
    ("n_tokens", "bands"),
    [
        (16, [(16, 16)]),
        (47, [(47, 47)]),
        (48, [(16, 47), (48, 48)]),
        (300, [(16, 47), (48, 95), (96, 191), (300, 300)]),
    ],
)
def test_a_document_has_a_length_in_each_band_that_it_reaches_and_its_own_last(n_tokens: int, bands) -> None:
    for key in "abcdefgh":
        lengths = band_lengths(key, n_tokens, seed=0)
        assert len(lengths) == len(bands)
        assert all(low <= length <= high for length, (low, high) in zip(lengths, bands, strict=True))
    assert len({tuple(band_lengths(str(key), 300, seed=0)) for key in range(50)}) > 40


def test_band_scores_are_those_of_the_prefixes_alone(tmp_path: Path) -> None:
    part = labelled(tmp_path, 30)
    detector = ZERO_SHOT["log-likelihood"]()
    places, scores, lengths = band_scores(detector, part.corpus, seed=3)
    by_place = dict(part.corpus.documents())
    assert sorted(set(places.tolist())) == list(range(30))
    for place, score, length in zip(places, scores, lengths, strict=True):
        assert detector.score([by_place[place].prefix(length)])[0] == score
    for place, features in by_place.items():
        assert lengths[places == place].tolist() == band_lengths(features.key, features.n_tokens, seed=3)
