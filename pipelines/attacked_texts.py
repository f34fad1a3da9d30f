"""Attacks on documents -> attacked texts, kept as Parquet files in the one form."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rapidfuzz.distance import Levenshtein

import detect.adversarial
from detect.adversarial.attack import AttackedText, AttackMeans
from detect.adversarial.catalog import BATCH, DETECTOR, NOTHING, AttackEntry, attack_entry, attack_named
from features.backbone import Backbone
from features.documents import Document
from features.errors import UsageError
from features.registry import files_id
from pipelines.cells import cell_name, digest_of, publish_frame
from pipelines.corpora import group_columns
from pipelines.scorers import AnyScorer, scores_of_texts, what_scores
from pipelines.scoring import Scorer

ATTACKED_SCHEMA: dict[str, pl.DataType] = {
    **dict.fromkeys(("id", "dataset", "split", "domain", "generator", "attack"), pl.String()),
    "label": pl.Int64(),
    "pair_id": pl.String(),
    "text": pl.String(),
    "strength": pl.Float64(),
    "queries": pl.Int64(),
    "edit_distance": pl.Float64(),
}
"""The one form, and what an attack did: its strength, the queries that it made of a detector, how much it changed."""

CHUNK = 16
"""Documents of a slow attack that a kill can cost."""


def attacks_id() -> str:
    """Identity of the code and the word lists of attacks: what others made is not taken for what these would make."""
    folder = Path(detect.adversarial.__file__).parent
    return files_id([*folder.glob("*.py"), *(folder / "words").iterdir()])


CODE = attacks_id()
"""Taken at import, with the modules: files that change while a long run goes on are not what runs."""


@dataclass(frozen=True)
class TextSet:
    """What was done to a set of texts.

    Attributes:
        attack: its name.
        strength: in the unit that the attack's entry names.
        target: the detector that it queries; None where it needs none.
    """

    attack: str
    strength: float
    target: str | None = None

    @property
    def shown(self) -> str:
        """For people: "adaptive 0.1 against pawn"."""
        return f"{self.attack} {self.strength:g}" + (f" against {self.target}" if self.target else "")


def parsed_strengths(given: str) -> list[tuple[bool, float]]:
    """What stands between the commas, each as (is a multiple of the usual strength, number): "x0.5,x1" or "0.1,0.3".

    Raises:
        UsageError: when something is no strength.
    """
    found = []
    for word in given.split(","):
        number = word.strip().removeprefix("x")
        try:
            value = float(number)
        except ValueError:
            value = float("nan")
        if not 0 < value < float("inf"):
            raise UsageError(
                f"expected strengths such as x0.5,x1,x2 (times the usual one) or 0.1,0.3 (as they are), got {given!r}"
            )
        found.append((word.strip().startswith("x"), value))
    return found


def strengths_of(entry: AttackEntry, given: Sequence[tuple[bool, float]]) -> list[float]:
    """The strengths that an attack is tried at, ascending: multiples end at its largest one.

    Raises:
        UsageError: for one as it is that the attack cannot have.
    """
    found = set()
    for multiple, value in given:
        if not multiple and value > entry.most:
            raise UsageError(
                f"attack {entry.name} has a strength of at most {entry.most:g} ({entry.strength_means}), got "
                f"{value:g}; give x1 for the usual strength of each"
            )
        found.add(min(float(f"{value * entry.strength:.4g}"), entry.most) if multiple else value)
    return sorted(found)


def text_sets(attacks: Sequence[str], given: str, detectors: Sequence[str]) -> list[TextSet]:
    """Every attack at every strength; one that queries a detector once for each of the detectors.

    Raises:
        UsageError: for an unknown attack or an impossible strength.
    """
    strengths = parsed_strengths(given)
    found = []
    for entry in map(attack_entry, dict.fromkeys(attacks)):
        targets = detectors if entry.needs == DETECTOR else [None]
        found += [TextSet(entry.name, value, target) for value in strengths_of(entry, strengths) for target in targets]
    return found


@dataclass(frozen=True)
class Attacker:
    """Makes attacked texts, or reads those that are kept.

    Attributes:
        folder: for the files.
        backbone: gives the language model of attacks that need one.
        backbone_name: of it; texts that another one wrote are other files.
        seed: of every random choice.
    """

    folder: Path
    backbone: Callable[[], Backbone]
    backbone_name: str
    seed: int

    def attacked(
        self, documents: Sequence[Document], text_set: TextSet, target: AnyScorer | None = None
    ) -> pl.DataFrame:
        """What an attack makes of each document, in order: columns `ATTACKED_SCHEMA`.

        Args:
            documents: human and machine ones; their ids are kept.
            text_set: what is done.
            target: the detector that is queried, where one is.
        """
        needs = attack_entry(text_set.attack).needs
        texts = [[document.id, document.text, document.label, document.domain] for document in documents]
        identity = {
            "attack": text_set.attack,
            "strength": text_set.strength,
            "seed": self.seed,
            "backbone": None if needs in (NOTHING, BATCH) else self.backbone_name,
            "target": None if target is None else what_scores(target),
            "texts": digest_of(texts, 64),
            "version": version("pawn-detect"),
            "code": CODE,
        }
        path = self.folder / f"{cell_name(text_set.shown, self.seed, identity)}.parquet"
        if path.is_file():
            return pl.read_parquet(path)
        size = len(documents) if needs in (NOTHING, BATCH) else CHUNK
        chunks = {
            path.with_name(f".{path.stem}-{start}.parquet"): documents[start : start + size]
            for start in range(0, len(documents), size)
        }
        for part, chunk in chunks.items():
            if not part.is_file():
                publish_frame(self._made(chunk, text_set, target), part)
        frame = pl.concat(pl.read_parquet(part) for part in chunks)
        publish_frame(frame, path)
        for part in chunks:
            part.unlink()
        return frame

    def _made(self, documents: Sequence[Document], text_set: TextSet, target: AnyScorer | None) -> pl.DataFrame:
        means = AttackMeans(self.backbone, None if target is None else queried(target))
        attack = attack_named(text_set.attack, means)
        return attacked_frame(documents, attack.apply(documents, text_set.strength, self.seed), text_set)


def queried(scorer: AnyScorer) -> Callable[[Sequence[str]], np.ndarray]:
    """Scores for an attack that queries a detector: what it tries and throws away is not kept in the cache."""
    asked = scorer
    if isinstance(scorer, Scorer):
        asked = Scorer(scorer.detector, scorer.extractor, normalise=scorer.normalise)
    return lambda texts: scores_of_texts(asked, texts)


def attacked_frame(documents: Sequence[Document], attacked: Sequence[AttackedText], text_set: TextSet) -> pl.DataFrame:
    """Attacked texts in the one form, in order; a text's `group` is that of what it was."""
    return pl.DataFrame(list(_rows(documents, attacked, text_set)), schema=ATTACKED_SCHEMA, orient="row")


def _rows(
    documents: Sequence[Document], attacked: Sequence[AttackedText], text_set: TextSet
) -> Iterator[dict[str, Any]]:
    for document, found in zip(documents, attacked, strict=True):
        yield {
            "id": document.id,
            **group_columns(document.group or f"attacked/attacked/{document.id}"),
            "domain": document.domain,
            "generator": document.generator if document.label else "human",
            "attack": text_set.attack,
            "label": document.label,
            "text": found.text,
            "strength": text_set.strength,
            "queries": found.queries,
            "edit_distance": Levenshtein.normalized_distance(document.text, found.text),
        }
