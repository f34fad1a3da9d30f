"""Protocols over labelled corpora: which documents are learnt from, which fix thresholds, which are judged."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from detect.splits import sources, split_groups, versions
from features.documents import Document
from features.errors import UsageError
from pipelines.fitting import SPLIT

LENGTHS = (16, 32, 64, 128, 256, 512)
"""Tokens of each test text that are read, in the length curve."""

SIZES = (0.02, 0.05, 0.15, 0.5, 1.0)
"""Shares of the training part, in the training-size curve."""

PROTOCOLS = ("in-domain", "corpus", "domain", "generator", "attack", "length", "size")
"""Of one split; each value of corpus, domain, generator or attack left out in turn; shorter texts; fewer of them."""


@dataclass(frozen=True)
class Fold:
    """One training and what it is judged on: indices into the documents.

    Attributes:
        protocol: one of `PROTOCOLS`.
        held_out: what the training did not see, or the point of a curve.
        train: learnt from.
        validation: chosen by (early stopping).
        calibration: fix thresholds; both classes.
        test: judged on.
        prefix: tokens of each test text that are read; None: all.
    """

    protocol: str
    held_out: str
    train: np.ndarray
    validation: np.ndarray
    calibration: np.ndarray
    test: np.ndarray
    prefix: int | None = None

    def same_training(self, other: "Fold") -> bool:
        """Whether a detector trained for one serves the other."""
        pairs = ((self.train, other.train), (self.validation, other.validation))
        return all(np.array_equal(one, another) for one, another in pairs)


def folds(
    documents: Sequence[Document],
    corpora: Sequence[str],
    protocol: str,
    seed: int,
    only_learnt: Collection[str] = (),
    numbers: Sequence[int] | None = None,
) -> Iterator[Fold]:
    """The folds of a protocol, each over the same split by sources as `pawn train` makes.

    What is left out is judged on whole; a text of another corpus or domain that is the same, begins so or is a
    near-duplicate (corpora hold the same articles) is on no side. A generator's or an attack's texts are judged against
    the human texts of the test part; they may share a prompt with texts learnt from (leaving those out too would leave
    little of some corpora). Thresholds come from texts of what was seen, of sources that were not.

    Args:
        documents: labelled, with domain, generator and attack.
        corpora: the corpus of each document.
        protocol: one of `PROTOCOLS`.
        seed: of the split by sources.
        only_learnt: corpora that are never judged: texts made for training. A fold learns from those that tell nothing
            of what it leaves out: of the domains that it learns from, of no generator or attack that it does not, and
            of no source that it judges.
        numbers: the sources of the documents (`detect.splits.sources`) where they are known already; None: found here.

    Raises:
        UsageError: for an unknown protocol.
    """
    made = np.isin(corpora, list(only_learnt))
    source = np.array(sources(documents) if numbers is None else numbers)
    for fold in _folds(documents, corpora, protocol, seed, ~made, source):
        yield _allowed(fold, documents, made, source) if made.any() else fold


def _allowed(fold: Fold, documents: Sequence[Document], made: np.ndarray, numbers: np.ndarray) -> Fold:
    """The fold without made texts in what it judges and chooses by, and with some in what it learns from."""
    genuine = fold.train[~made[fold.train]]
    domains = {documents[index].domain for index in genuine}
    unseen = {generator_name(document) for document, other in zip(documents, made, strict=True) if not other}
    unseen -= {generator_name(documents[index]) for index in genuine}
    judged_sources = set(numbers[fold.test[~made[fold.test]]].tolist())

    def tells_nothing(index: int) -> bool:
        document = documents[index]
        return (
            document.domain in domains
            and generator_name(document) not in unseen
            and not (fold.protocol == "attack" and attack_name(document) == fold.held_out)
            and int(numbers[index]) not in judged_sources
        )

    kept = [index for index in fold.train if not made[index] or tells_nothing(index)]
    judged = {part: getattr(fold, part) for part in ("validation", "calibration", "test")}
    return replace(
        fold, train=np.array(kept, dtype=int), **{part: members[~made[members]] for part, members in judged.items()}
    )


def _folds(
    documents: Sequence[Document],
    corpora: Sequence[str],
    protocol: str,
    seed: int,
    judged: np.ndarray,
    source: np.ndarray,
) -> Iterator[Fold]:
    if protocol not in PROTOCOLS:
        raise UsageError(f"unknown protocol {protocol!r}, expected one of {', '.join(PROTOCOLS)}")
    parts = np.array(split_groups(documents, SPLIT, seed, source.tolist()))
    whole = _fold("in-domain", "nothing", parts, np.ones(len(documents), bool), parts == "test")
    if protocol == "in-domain":
        yield whole
    elif protocol == "length":
        for length in LENGTHS:
            yield replace(whole, protocol=protocol, held_out=f"{length} tokens", prefix=length)
    elif protocol == "size":
        yield from _sizes(whole, source, seed, judged)
    else:
        yield from _left_out(documents, corpora, parts, protocol, judged)


def _fold(protocol: str, held_out: str, parts: np.ndarray, seen: np.ndarray, test: np.ndarray) -> Fold:
    train, validation, calibration = (
        np.flatnonzero(seen & (parts == part)) for part in ("train", "validation", "calibration")
    )
    return Fold(protocol, held_out, train, validation, calibration, np.flatnonzero(test))


def _left_out(
    documents: Sequence[Document], corpora: Sequence[str], parts: np.ndarray, protocol: str, judged: np.ndarray
) -> Iterator[Fold]:
    values: dict[str, Callable[[], list[str]]] = {
        "corpus": lambda: list(corpora),
        "domain": lambda: [str(document.domain) for document in documents],
        "generator": lambda: [generator_name(document) for document in documents],
        "attack": lambda: [attack_name(document) for document in documents],
    }
    field = np.array(values[protocol]())
    machine = np.array([document.label == 1 for document in documents])
    names = sorted(set(field[machine & judged]) - ({"none"} if protocol == "attack" else set()))
    version = np.array([])
    if protocol in ("corpus", "domain"):
        version = np.array(versions(documents))
    for name in names:
        left_out = field == name
        test = left_out
        if protocol in ("generator", "attack"):
            left_out = left_out & machine
            test = left_out | ((parts == "test") & ~machine)
        else:
            left_out = np.isin(version, version[left_out])
        yield _fold(protocol, str(name), parts, ~left_out, test)


def _sizes(whole: Fold, source: np.ndarray, seed: int, judged: np.ndarray) -> Iterator[Fold]:
    """The same test, learnt from fewer sources; each smaller training is a part of the larger ones.

    Texts that are only learnt from are all in each.
    """
    genuine, made = whole.train[judged[whole.train]], whole.train[~judged[whole.train]]
    _, number = np.unique(source[genuine], return_inverse=True)  # 0, 1, ... for each source
    rank = np.random.default_rng(seed).permutation(number.max() + 1)
    order = np.argsort(rank[number], kind="stable")
    for count in dict.fromkeys(max(2, round(share * len(order))) for share in SIZES):
        kept = genuine[order[:count]]
        train = np.sort(np.concatenate([kept, made]))
        yield replace(whole, protocol="size", held_out=f"{len(kept)} texts", train=train)


def generator_name(document: Document) -> str:
    """Corpora spell the same generator in different cases."""
    return str(document.generator).lower()


def attack_name(document: Document) -> str:
    """What was done to a text; "none" where nothing was, or nothing is known of it."""
    return document.attack or "none"
