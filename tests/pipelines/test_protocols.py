"""Folds: what is left out is never learnt from, and nothing of one source is on two sides."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest

from detect.splits import sources
from features.documents import Document
from features.errors import UsageError
from pipelines.protocols import LENGTHS, PROTOCOLS, SIZES, Fold, folds


def document(number: int) -> Document:
    """Sources of two texts; half of them machine-written, of two generators in changing case, a third attacked."""
    label = number // 2 % 2
    return Document(
        id=str(number),
        text=f"{number:05d} begins this text",
        label=label,
        domain=("news", "essays", "reviews")[number // 4 % 3],
        generator=("GPT", "gpt", "llama")[number % 3] if label else "human",
        attack=(None, "none", "typos")[number % 3] if label else None,
        group=str(number // 2),
    )


DOCUMENTS = [document(number) for number in range(600)]
CORPORA = ["one" if number < 400 else "two" for number in range(600)]


def parts(fold: Fold) -> dict[str, np.ndarray]:
    return {name: getattr(fold, name) for name in ("train", "validation", "calibration", "test")}


def found(protocol: str, seed: int = 0) -> list[Fold]:
    return list(folds(DOCUMENTS, CORPORA, protocol, seed))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_source_is_on_two_sides(protocol: str) -> None:
    number = np.array(sources(DOCUMENTS))
    for fold in found(protocol):
        sides = [set(number[members]) for members in parts(fold).values()]
        for one in range(4):
            # Only what is left out may share a source with what is learnt: a generator's texts with human ones.
            for other in range(one + 1, 4 if protocol not in ("generator", "attack") else 3):
                assert not sides[one] & sides[other], (fold.held_out, one, other)


@pytest.mark.parametrize(
    ("protocol", "values"),
    [
        ("corpus", ["one", "two"]),
        ("domain", ["essays", "news", "reviews"]),
        ("generator", ["gpt", "llama"]),
        ("attack", ["typos"]),
    ],
)
def test_each_value_is_left_out_once_and_whole(protocol: str, values: Sequence[str]) -> None:
    assert [fold.held_out for fold in found(protocol)] == values
    of: dict[str, list[str]] = {
        "corpus": CORPORA,
        "domain": [str(d.domain) for d in DOCUMENTS],
        "generator": [str(d.generator).lower() for d in DOCUMENTS],
        "attack": [d.attack or "none" for d in DOCUMENTS],
    }
    for fold in found(protocol):
        theirs = {i for i, value in enumerate(of[protocol]) if value == fold.held_out}
        assert theirs <= set(fold.test.tolist())
        for name in ("train", "validation", "calibration"):
            assert not theirs & set(parts(fold)[name].tolist()), name
        assert len(fold.train) > 100


@pytest.mark.parametrize("protocol", ["corpus", "domain"])
def test_versions_elsewhere_of_what_is_left_out_are_on_no_side(protocol: str) -> None:
    article = " ".join(f"{number}th" for number in range(60))
    versions = [replace(document(number), text=f"{number} {article}", group=None) for number in range(600, 624)]
    documents, corpora = [*DOCUMENTS, *versions], [*CORPORA, *["one", "two"] * 12]
    field = np.array(corpora if protocol == "corpus" else [str(d.domain) for d in documents])
    for fold in folds(documents, corpora, protocol, 0):
        learnt = np.concatenate([fold.train, fold.validation, fold.calibration])
        assert np.array_equal(np.flatnonzero(field == fold.held_out), fold.test)
        assert learnt.max() < 600  # a version of the article is in every corpus and domain


@pytest.mark.parametrize("protocol", ["generator", "attack"])
def test_a_generator_or_an_attack_is_judged_against_human_texts_of_the_test_part(protocol: str) -> None:
    (whole,) = found("in-domain")
    human = {i for i in whole.test.tolist() if DOCUMENTS[i].label == 0}
    for fold in found(protocol):
        assert {i for i in fold.test.tolist() if DOCUMENTS[i].label == 0} == human


def test_the_length_curve_has_one_training_and_shorter_texts() -> None:
    (whole,) = found("in-domain")
    curve = found("length")
    assert [fold.prefix for fold in curve] == list(LENGTHS)
    assert all(fold.same_training(whole) for fold in curve)
    assert all(np.array_equal(fold.test, whole.test) for fold in curve)


def test_the_training_size_curve_grows_by_sources_to_the_whole() -> None:
    (whole,) = found("in-domain")
    curve = found("size")
    assert len(curve) == len(SIZES)
    for smaller, larger in pairwise(curve):
        assert set(smaller.train.tolist()) < set(larger.train.tolist())
        assert not smaller.same_training(larger)
    assert curve[-1].same_training(whole)
    assert [fold.held_out for fold in curve] == [f"{len(fold.train)} texts" for fold in curve]


def test_another_seed_is_another_split() -> None:
    assert not found("in-domain", 0)[0].same_training(found("in-domain", 1)[0])


def test_an_unknown_protocol_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="unknown protocol 'leave-one-out', expected one of in-domain, corpus"):
        found("leave-one-out")


MADE = [
    Document(f"made {number}", f"made text number {number}", 1, domain, generator)
    for number, (domain, generator) in enumerate(
        product(("essays", "news", "reviews", "recipes"), ("gpt", "own"), repeat=1), start=600
    )
    for number in range(number * 10, number * 10 + 10)
]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_texts_made_for_training_are_never_judged_and_tell_nothing_of_what_is_left_out(protocol: str) -> None:
    documents = [*DOCUMENTS, *MADE]
    corpora = [*CORPORA, *(["made"] * len(MADE))]
    with_made = list(folds(documents, corpora, protocol, 0, ["made"]))
    for before, fold in zip(found(protocol), with_made, strict=True):
        assert before.held_out == fold.held_out
        for name in ("validation", "calibration", "test"):
            assert parts(fold)[name].tolist() == parts(before)[name].tolist()
        used = [documents[index] for index in fold.train if index >= len(DOCUMENTS)]
        genuine = [documents[index] for index in fold.train if index < len(DOCUMENTS)]
        assert genuine == [documents[index] for index in before.train]
        assert {document.domain for document in used} <= {document.domain for document in genuine}
        assert "recipes" not in {document.domain for document in used}
        learnt = {str(document.generator).lower() for document in genuine}  # a few texts may lack one
        assert ("gpt" in {document.generator for document in used}) == ("gpt" in learnt)
        assert "gpt" not in learnt or fold.held_out != "gpt"
        assert "own" in {document.generator for document in used}
