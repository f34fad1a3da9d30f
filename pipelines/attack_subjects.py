"""Which texts a stress test attacks, and which other human texts fix its thresholds."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from detect.splits import sources, split_groups
from features.documents import Document, Status, text_key
from features.errors import InputError
from pipelines.corpora import Corpus, CorpusOptions
from pipelines.protocols import attack_name, generator_name
from pipelines.training_data import distinct_texts

JUDGED, CALIBRATION = "judged", "calibration"
_HALVES = {CALIBRATION: 0.5, JUDGED: 0.5}


@dataclass(frozen=True)
class Subjects:
    """Clean documents of a stress test, each text once; those with the same source are all judged or all not.

    Attributes:
        documents: their ids are the keys of their texts.
        corpora: where each came from, for people.
        sources: of each as a number: equal numbers, one source.
        parts: of each: `JUDGED` ones are attacked, human ones of `CALIBRATION` fix the thresholds.
    """

    documents: Sequence[Document]
    corpora: Sequence[str]
    sources: Sequence[int]
    parts: Sequence[str]

    def check(self) -> None:
        """Refuse what no stress test can be made of.

        Raises:
            InputError: when a class is missing in what is judged, or there is nothing to fix thresholds on.
        """
        counts = Counter((part, document.label) for part, document in zip(self.parts, self.documents, strict=True))
        if not (counts[JUDGED, 0] and counts[JUDGED, 1] and counts[CALIBRATION, 0]):
            raise InputError(
                "a stress test needs human and machine texts to attack and other human texts that fix thresholds, got "
                f"{counts[JUDGED, 0]} human and {counts[JUDGED, 1]} machine texts, and {counts[CALIBRATION, 0]} human "
                "ones for thresholds: give more texts, or --calibrate-on FILE"
            )

    def of(self, part: str) -> "list[int]":
        """Indices of the documents of a part."""
        return [index for index, found in enumerate(self.parts) if found == part]

    def subset(self, indices: Sequence[int]) -> "Subjects":
        """Some of them."""
        fields = (self.documents, self.corpora, self.sources, self.parts)
        return Subjects(*([field[index] for index in indices] for field in fields))  # type: ignore[arg-type]  # "list[object]"

    @classmethod
    def chosen(
        cls,
        judged: Mapping[str, tuple[Document, str]],
        calibration: Mapping[str, tuple[Document, str]],
        *,
        limit: int | None,
        calibration_texts: int,
        seed: int,
    ) -> "Subjects":
        """Choose among documents, each with its corpus, by text key.

        Args:
            judged: of both classes.
            calibration: human ones that fix thresholds; where there are none, half of the sources of `judged` do.
            limit: most documents of each class that are judged; None: all.
            calibration_texts: most human documents that fix thresholds.
            seed: of the halves and of the choice, which keeps the shares of corpora, domains and generators.
        """
        found = {**calibration, **judged}
        documents = [replace(document, id=key) for key, (document, _) in found.items()]
        numbers = sources(documents)
        if calibration:
            of_judged = {number for key, number in zip(found, numbers, strict=True) if key in judged}
            parts = [JUDGED if number in of_judged else CALIBRATION for number in numbers]
            kept = [index for index, key in enumerate(found) if key in judged or parts[index] == CALIBRATION]
        else:
            parts = split_groups(documents, _HALVES, seed, numbers)
            kept = list(range(len(documents)))
        corpora = [corpus for _, corpus in found.values()]
        chosen = []
        for part, label, most in ((JUDGED, 0, limit), (JUDGED, 1, limit), (CALIBRATION, 0, calibration_texts)):
            members = [index for index in kept if parts[index] == part and documents[index].label == label]
            chosen += stratified(
                [documents[index] for index in members], [corpora[index] for index in members], members, most, seed
            )
        chosen.sort()
        return cls(*([field[index] for index in chosen] for field in (documents, corpora, numbers, parts)))  # type: ignore[arg-type]  # "list[object]"


def stratified(
    documents: Sequence[Document], corpora: Sequence[str], members: Sequence[int], limit: int | None, seed: int
) -> list[int]:
    """At most `limit` of `members`, numbers of the documents, with the shares of corpus, domain and generator kept.

    Which of a stratum are taken is drawn; all of them where there is no limit.
    """
    if limit is None or len(members) <= limit:
        return list(members)
    strata: dict[tuple[str, str, str], list[int]] = defaultdict(list)
    for place, (document, corpus) in enumerate(zip(documents, corpora, strict=True)):
        strata[corpus, str(document.domain), generator_name(document)].append(place)
    rng = np.random.default_rng(seed)
    ranked = []
    for name in sorted(strata):
        size = len(strata[name])
        # The fraction of its stratum that comes before a document: equal cuts take equal shares.
        ranked += [
            ((rank + rng.random()) / size, strata[name][place]) for rank, place in enumerate(rng.permutation(size))
        ]
    return sorted(members[place] for _, place in sorted(ranked)[:limit])


def read_clean(inputs: Sequence[str], columns: CorpusOptions) -> tuple[dict[str, tuple[Document, str]], Counter[str]]:
    """Labelled documents to which nothing was done, with their corpus, by text key; what was left out, by reason.

    Raises:
        InputError: when no row can be used.
    """
    corpora: dict[str, str] = {}
    left_out: Counter[str] = Counter()

    def usable() -> Iterator[tuple[str, Document]]:
        for path in inputs:
            with Corpus.open([path], columns) as corpus:
                for row in corpus.rows():
                    key = text_key(row.document.text) if row.status is Status.OK else ""
                    if row.status is not Status.OK:
                        left_out[str(row.status)] += 1
                    elif row.document.label and attack_name(row.document) != "none":
                        left_out["attacked already"] += 1
                    else:
                        corpora.setdefault(key, Path(path).stem)
                        yield key, row.document

    by_key, left_out["repeated"], left_out["with both labels"] = distinct_texts(usable())
    left_out = +left_out
    if not by_key:
        raise InputError(f"no text of {', '.join(inputs)} can be used: {dict(left_out)}")
    return {key: (document, corpora[key]) for key, document in by_key.items()}, left_out
