from dataclasses import replace

import numpy as np

from detect.trained import silent
from features.documents import Document
from pipelines.fitting import BandScores
from pipelines.hardening_learner import HardenedLearner, Version, new_versions


class Recording:
    """A learner that remembers what it was asked to fit on."""

    def __init__(self, documents: list[Document]) -> None:
        self.documents = documents
        self.fitted: dict[str, list[int]] = {}

    @property
    def labels(self) -> np.ndarray:
        return np.array([document.label for document in self.documents])

    def new(self) -> str:
        return "detector"

    def fit(self, detector, parts, progress, held_out) -> None:
        self.fitted = {name: own.tolist() for name, own in parts.items()}

    def band_scores(self, detector, indices) -> BandScores:
        return BandScores(np.arange(len(indices)), 10.0 * indices)


DOCUMENTS = [Document(str(number), f"Text {number}.", number % 2) for number in range(5)]


def hardened() -> tuple[HardenedLearner, Recording]:
    """Five documents; three versions, of 3, 0 and 3."""
    versions = [Document(f"v{number}", f"Version {number}.", 0) for number in range(3)]
    base = Recording([*DOCUMENTS, *versions])
    return HardenedLearner(base, np.array([3, 0, 3])), base


def test_versions_go_where_their_documents_go():
    learner, base = hardened()
    learner.fit(learner.new(), {"train": np.array([1, 3]), "validation": np.array([0, 2])}, silent, None)
    assert base.fitted == {"train": [1, 3, 5, 7], "validation": [0, 2, 6]}


def test_splits_and_scores_are_of_the_documents_alone():
    learner, _ = hardened()
    assert learner.documents == DOCUMENTS
    assert learner.labels.tolist() == [0, 1, 0, 1, 0]
    assert learner.band_scores("detector", np.array([4, 2])).scores.tolist() == [40.0, 20.0]


def test_without_versions_a_learner_is_what_it_was():
    base = Recording(DOCUMENTS)
    learner = HardenedLearner(base, np.array([], dtype=np.int64))
    learner.fit(learner.new(), {"train": np.array([0, 1])}, silent, None)
    assert (learner.documents, base.fitted) == (DOCUMENTS, {"train": [0, 1]})


def test_what_is_not_shown_is_not_learnt_from_nor_are_its_versions():
    learner, base = hardened()
    before = replace(learner, not_shown=frozenset({3, 4}))
    before.fit(before.new(), {"train": np.array([0, 1, 3]), "validation": np.array([2, 4])}, silent, None)
    assert base.fitted == {"train": [0, 1, 6], "validation": [2]}
    assert before.documents == DOCUMENTS


def test_a_version_that_says_nothing_new_is_left_out():
    texts = ["Text 2.", "New text.", " New  text.", "", "Other text."]
    versions = [Version(Document(str(number), text), number) for number, text in enumerate(texts)]
    assert [version.origin for version in new_versions(DOCUMENTS, versions)] == [1, 4]
