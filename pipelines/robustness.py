"""A stress test: what detectors give clean texts, attacked texts and normalised ones; a stopped one goes on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from detect.adversarial.normalisation import normalised
from features.documents import Document
from pipelines.attack_subjects import JUDGED, Subjects
from pipelines.attacked_texts import Attacker, TextSet
from pipelines.cells import cell_name, digest_of, publish_frame
from pipelines.protocols import generator_name
from pipelines.robustness_figures import CLEAN, SCORED_SCHEMA
from pipelines.scorers import AnyScorer, scores_of_texts, what_scores

Finished = Callable[[TextSet, pl.DataFrame, pl.DataFrame], None]
"""Given each set of texts that is done: what it is, the texts (`ATTACKED_SCHEMA`), their scores (`SCORED_SCHEMA`)."""


@dataclass
class StressTest:
    """Detectors under attack, in a folder: what is attacked and scored already stays so.

    Args:
        subjects: the clean documents.
        scorers: the detectors by name.
        attacker: makes the attacked texts.
        folder: holds a file of scores for each set of texts and detector, in a folder `scores`.
        say: told what a person should know.

    Attributes:
        left_out: clean documents that a detector could not score.
    """

    subjects: Subjects
    scorers: Mapping[str, AnyScorer]
    attacker: Attacker
    folder: Path
    say: Callable[[str], None] = lambda message: None
    left_out: int = field(default=0, init=False)
    _clean: pl.DataFrame | None = field(default=None, init=False)

    @property
    def detectors(self) -> dict[str, dict[str, str]]:
        """What each detector is, by name."""
        return {name: what_scores(scorer) for name, scorer in self.scorers.items()}

    def clean(self) -> pl.DataFrame:
        """Scores of the clean documents by each detector; those that one of them cannot score are left out."""
        if self._clean is None:
            frames = [self._scores(name, self.subjects, CLEAN) for name in self.scorers]
            scored = [frame["score"].is_not_null() for frame in frames]
            usable = np.logical_and.reduce([column.to_numpy() for column in scored])
            if left_out := int((~usable).sum()):
                self.left_out = left_out
                self.say(f"{left_out:,} texts are left out: a detector has no score for them (too short)")
                self.subjects = self.subjects.subset(np.flatnonzero(usable).tolist())
                self.subjects.check()
                frames = [frame.filter(usable) for frame in frames]
            self._clean = pl.concat(frames)
        return self._clean

    def run(
        self, text_sets: Sequence[TextSet], finished: Finished = lambda text_set, texts, scored: None
    ) -> pl.DataFrame:
        """Attack and score what is not yet; returns all scores, the clean ones first: rows of `SCORED_SCHEMA`.

        Args:
            text_sets: the attacks; each text set is scored by every detector, also one made against another of them.
            finished: given each of them when it is done.
        """
        frames = [self.clean()]
        judged = self.subjects.subset(self.subjects.of(JUDGED))
        for place, text_set in enumerate(text_sets, start=1):
            target = None if text_set.target is None else self.scorers[text_set.target]
            texts = self.attacker.attacked(judged.documents, text_set, target)
            changed = int((texts["edit_distance"] > 0).sum())
            self.say(f"[{place}/{len(text_sets)}] {text_set.shown}: {changed:,} of {len(texts):,} texts changed")
            scored = pl.concat(self._attacked(name, judged, text_set, texts) for name in self.scorers)
            finished(text_set, texts, scored)
            frames.append(scored)
        return pl.concat(frames)

    def foreign(self, others: Subjects, name: str) -> pl.DataFrame:
        """Scores of texts that have no clean version here, such as a generator's; `name` stands for the attack."""
        return pl.concat(self._scores(detector, others, name) for detector in self.scorers)

    def _attacked(self, detector: str, judged: Subjects, text_set: TextSet, texts: pl.DataFrame) -> pl.DataFrame:
        documents = [
            Document(original.id, text, original.label, original.domain, original.generator)
            for original, text in zip(judged.documents, texts["text"], strict=True)
        ]
        changed = Subjects(documents, judged.corpora, judged.sources, judged.parts)
        return self._scores(detector, changed, text_set.attack, text_set.shown).with_columns(
            strength=pl.lit(text_set.strength),
            target=pl.lit(text_set.target, pl.String),
            queries=texts["queries"],
            edit_distance=texts["edit_distance"],
        )

    def _scores(self, detector: str, subjects: Subjects, attack: str, shown: str | None = None) -> pl.DataFrame:
        """Scores of some texts as they are and normalised: rows of `SCORED_SCHEMA`."""
        documents = subjects.documents
        scores = self._kept_scores(detector, [document.text for document in documents], shown or attack)
        return pl.DataFrame(
            {
                "detector": detector,
                "attack": attack,
                "strength": None,
                "target": None,
                "part": subjects.parts,
                "id": [document.id for document in documents],
                "source": subjects.sources,
                "corpus": subjects.corpora,
                "domain": [str(document.domain) for document in documents],
                "generator": [generator_name(document) if document.label else "human" for document in documents],
                "label": [document.label for document in documents],
                "queries": None,
                "edit_distance": None,
                "score": scores["score"],
                "score_normalised": scores["score_normalised"],
            },
            schema=SCORED_SCHEMA,
        )

    def _kept_scores(self, detector: str, texts: Sequence[str], shown: str) -> pl.DataFrame:
        """Scores of texts, `score` as they are and `score_normalised`, or the file that holds them already."""
        scorer = self.scorers[detector]
        columns = {"score": texts, "score_normalised": [normalised(text) for text in texts]}
        identity = {"detector": what_scores(scorer), "texts": digest_of(list(columns.values()), 64)}
        name = cell_name(f"{shown}-{detector}", self.attacker.seed, identity)
        path = self.folder / "scores" / f"{name}.parquet"
        if path.is_file():
            return pl.read_parquet(path)
        distinct = list(dict.fromkeys(text for own in columns.values() for text in own))
        found = dict(zip(distinct, scores_of_texts(scorer, distinct).tolist(), strict=True))
        scores = pl.DataFrame({name: [found[text] for text in own] for name, own in columns.items()})
        scores = scores.cast(pl.Float64).fill_nan(None)
        publish_frame(scores, path)
        return scores
