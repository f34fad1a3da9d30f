"""Detectors on the folds of a protocol -> judgements: a row for each document judged, with its score.

Figures, tables and plots are made of judgements (`pipelines/figures.py`), and so can be made again, by anybody.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl

from cache.loader import CachedCorpus
from cache.store import FeatureStore
from detect.catalog import LAYERS, TWO_MODELS, load_detector, maker, reads, text_names, trainable_names, untrained_names
from detect.checked_scores import checked_scores
from detect.ensemble import EnsembleDetector, fit_member
from detect.protocol import Detector, LabelledTexts, TextDetector, needs_hidden, needs_observer, reads_text
from detect.splits import sources
from detect.text_recipes import text_recipe
from detect.trained import DetectorCard, Progress, recipe_of, streamed_scores
from features.documents import Document, canonical_text
from features.errors import InputError, UsageError
from features.extractor import Extractor
from features.token_features import TokenFeatures
from pipelines.cells import digest_of
from pipelines.corpora import Corpus, CorpusOptions
from pipelines.figures import JUDGEMENT_SCHEMA
from pipelines.protocols import Fold, attack_name, generator_name
from pipelines.training_data import RowsProgress, TrainingData, backbone_record, load_training_data

T = TypeVar("T")


@dataclass(frozen=True)
class LabelledCorpora:
    """Labelled documents of several corpora with their cached features, each text once.

    Attributes:
        data: documents and features.
        names: the corpus of each document.
        sources: of each document as a number: equal numbers, one source.
        n_tokens: (n,) tokens that were read of each.
        backbone: what a detector keeps of the language model (`backbone_record`).
        left_out: rows that could not be used, by what was wrong with them.
    """

    data: TrainingData
    names: list[str]
    sources: list[int]
    n_tokens: np.ndarray
    backbone: dict[str, Any]
    left_out: Mapping[str, int]

    @classmethod
    def load(
        cls,
        files: Mapping[str, Sequence[Path]],
        extractor: Extractor,
        store: FeatureStore,
        progress: RowsProgress = lambda rows, total, tokens: None,
        share: float = 1.0,
    ) -> "LabelledCorpora":
        """Extract what is missing of labelled files, by the name of the corpus that they make up.

        A text that several corpora hold belongs to the first; one with both labels to none. Of the sources of each,
        `share` are used.

        Raises:
            InputError: when no row can be used.
        """
        found: dict[str, tuple[Document, str]] = {}
        left_out = {"repeated": 0, "with both labels": 0}
        both: set[str] = set()
        for name, paths in files.items():
            with Corpus.open([str(path) for path in paths], CorpusOptions(labelled=True, share=share)) as corpus:
                data, summary = load_training_data(corpus, extractor, store, corpus.count_rows(), progress)
            for status, count in summary.by_status.items():
                if status != "ok":
                    left_out[status] = left_out.get(status, 0) + count
            left_out["repeated"] += data.repeated
            left_out["with both labels"] += data.conflicting
            for key, document in zip(data.corpus.keys, data.documents, strict=True):
                first, _ = found.setdefault(key, (document, name))
                left_out["repeated"] += first is not document
                if first.label != document.label:
                    both.add(key)
        kept = [key for key in found if key not in both]
        left_out["with both labels"] += len(both)
        if not kept:
            raise InputError("no text of these corpora can be used: every one has both labels")
        documents = [found[key][0] for key in kept]
        return cls(
            data=TrainingData(CachedCorpus(store, kept), documents, 0, 0),
            names=[found[key][1] for key in kept],
            sources=sources(documents),
            n_tokens=np.array([store.locate(key).n_tokens for key in kept]),
            backbone=backbone_record(extractor, store.codec),
            left_out={status: count for status, count in left_out.items() if count},
        )

    def describe(self, indices: np.ndarray) -> dict[str, list[Any]]:
        """What judgements say of some documents."""
        documents = [self.data.documents[index] for index in indices]
        return {
            "id": [self.data.corpus.keys[index] for index in indices],
            "source": [self.sources[index] for index in indices],
            "corpus": [self.names[index] for index in indices],
            "domain": [str(document.domain) for document in documents],
            "generator": [generator_name(document) if document.label else "human" for document in documents],
            "attack": [attack_name(document) for document in documents],
            "label": [document.label for document in documents],
        }


@dataclass(frozen=True)
class Trainings:
    """Detectors that learnt from the same texts: contenders and members of ensembles that are alike learn once."""

    _found: dict[str, Any] = field(default_factory=dict)

    def once(self, name: str, recipe: Mapping[str, Any], train: Callable[[], T], *, of_texts: bool = False) -> T:
        """What `train` makes of a detector of the catalog under a recipe, or made of it before.

        Args:
            name: in the catalog.
            recipe: all that it learns by.
            train: makes it where it was not made before.
            of_texts: whether it reads texts; as a member of an ensemble the same detector reads features.
        """
        key = digest_of([name, dict(recipe), of_texts])
        if key not in self._found:
            self._found[key] = train()
        found: T = self._found[key]
        return found


@dataclass(frozen=True)
class Contender:
    """A detector as a benchmark names it.

    Attributes:
        label: what the tables call it.
        name: of the catalog, a folder, or `module:Class`.
        settings: of its recipe, where it is trained here.
    """

    label: str
    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def reads_layers(self) -> bool:
        """Whether it, or a member, is made for hidden states of several layers."""
        return reads(LAYERS, self.name, self.settings)

    def reads_observer(self) -> bool:
        """Whether it, or a member, compares two language models; a class of one's own is asked."""
        if self.name in trainable_names():
            return reads(TWO_MODELS, self.name, self.settings)
        return needs_observer(load_detector(self.name).detector)

    def check(self) -> None:
        """Raise now rather than after hours when it cannot take part.

        Raises:
            UsageError: when there is no such detector or setting, or it was trained already, perhaps on these texts.
        """
        if "seed" in self.settings:
            raise UsageError(
                f"detector {self.label} has a seed among its settings; expected seeds under `seeds` alone, which are "
                "those of every detector"
            )
        if self.name in trainable_names():
            (text_recipe if self.name in text_names() else maker)(self.name, **self.settings)
            return
        if self.settings:
            raise UsageError(f"detector {self.name} is not trained and takes no settings, got {dict(self.settings)}")
        found = load_detector(self.name)
        if found.calibration is not None:
            raise UsageError(
                f"detector {self.name} was trained already, perhaps on the texts that it would be judged on here: "
                "'pawn evaluate' judges it on texts that you know to be others"
            )

    def recipe(self, backbone: Mapping[str, Any], seed: int) -> dict[str, Any]:
        """All that it learns by, whether written in a configuration or a default of this version; JSON-able.

        Args:
            backbone: of the features.
            seed: of the training.
        """
        if self.name in text_names():
            return asdict(text_recipe(self.name, seed=seed, **self.settings))
        if self.name in untrained_names():
            return {}
        if self.name not in trainable_names():
            return dict(load_detector(self.name).identity)  # of a class of one's own, the hash of its source
        make = maker(self.name, seed=seed, **self.settings)
        return recipe_of(make(DetectorCard(name=self.label, backbone=dict(backbone))))

    def fitted(
        self, corpora: LabelledCorpora, fold: Fold, seed: int, progress: Progress, trainings: Trainings
    ) -> Detector | TextDetector:
        """The detector trained for a fold; a class of one's own is asked to learn, a zero-shot one has nothing to.

        Args:
            corpora: documents and features.
            fold: which of them it learns from and chooses by.
            seed: of the training.
            progress: told of the training.
            trainings: those of the same fold and seed before this one.
        """
        recipe = self.recipe(corpora.backbone, seed)

        def train() -> Detector | TextDetector:
            return self._fitted(corpora, fold, seed, progress, trainings)

        return trainings.once(self.name, recipe, train, of_texts=self.name in text_names())

    def _fitted(
        self, corpora: LabelledCorpora, fold: Fold, seed: int, progress: Progress, trainings: Trainings
    ) -> Detector | TextDetector:
        if self.name in text_names():
            recipe = text_recipe(self.name, seed=seed, **self.settings)
            learner = recipe.new(self.label)
            recipe.fit(learner, texts_of(corpora, fold.train), texts_of(corpora, fold.validation), progress=progress)
            return learner
        train, validation = corpora.data.part(fold.train), corpora.data.part(fold.validation)
        if self.name in trainable_names():
            card = DetectorCard(name=self.label, backbone=corpora.backbone)
            detector = maker(self.name, seed=seed, **self.settings)(card)
            if not isinstance(detector, EnsembleDetector):
                return detector.fit(train, validation, progress)
            for place, (name, member) in enumerate(zip(detector.config.members, detector.members, strict=True)):
                detector.members[place] = trainings.once(
                    name, recipe_of(member), partial(fit_member, member, train, validation, progress)
                )
            return detector.weigh(validation, progress)
        ready = load_detector(self.name).detector
        if reads_text(ready):
            return ready.fit(texts_of(corpora, fold.train), texts_of(corpora, fold.validation))
        return ready.fit(train, validation)


def texts_of(corpora: LabelledCorpora, indices: np.ndarray) -> LabelledTexts:
    """Some of the texts with their labels."""
    documents = [corpora.data.documents[index] for index in indices]
    return LabelledTexts([document.text for document in documents], corpora.data.labels[indices])


def judged(
    corpora: LabelledCorpora, fold: Fold, detector: Detector | TextDetector, label: str, seed: int
) -> pl.DataFrame:
    """The judgements of a detector on the calibration and test documents of a fold: columns `JUDGEMENT_SCHEMA`."""
    frames = []
    for part, indices, prefix in (("calibration", fold.calibration, None), ("test", fold.test, fold.prefix)):
        limit = prefix or int(corpora.n_tokens.max(initial=0))
        frames.append(
            pl.DataFrame(
                {
                    "detector": label,
                    "protocol": fold.protocol,
                    "held_out": fold.held_out,
                    "seed": seed,
                    "part": part,
                    **corpora.describe(indices),
                    "n_tokens": np.minimum(corpora.n_tokens[indices], limit),
                    "score": _scores(corpora, indices, detector, prefix),
                },
                schema=JUDGEMENT_SCHEMA,
            )
        )
    return pl.concat(frames)


def _scores(
    corpora: LabelledCorpora, indices: np.ndarray, detector: Detector | TextDetector, prefix: int | None
) -> np.ndarray:
    """Scores of some documents, (n,), of their first `prefix` tokens."""
    part = corpora.data.corpus.subset(indices.tolist())
    if reads_text(detector):
        texts = [corpora.data.documents[index].text for index in indices]
        if prefix is not None:  # cut where the features of the others are cut
            ends = dict(_ends(part, prefix))
            texts = [canonical_text(text)[: ends[place]] for place, text in enumerate(texts)]
        return checked_scores(detector, texts)

    def score(features: Sequence[TokenFeatures]) -> np.ndarray:
        if prefix is not None:
            features = [document.prefix(min(prefix, document.n_tokens)) for document in features]
        return checked_scores(detector, features)

    return streamed_scores(score, part if needs_hidden(detector) else part.without_hidden())


def _ends(part: CachedCorpus, prefix: int) -> list[tuple[int, int]]:
    """Index and last character of the first `prefix` tokens of each document."""
    return [(index, int(document.offsets[:prefix, 1].max())) for index, document in part.without_hidden().documents()]
