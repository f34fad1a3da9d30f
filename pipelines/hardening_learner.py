"""Training on documents and on attacked versions of them, whatever the detector reads."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from cache.codec import Codec
from cache.codec_catalog import codec_named
from cache.loader import CachedCorpus
from cache.store import FeatureStore
from detect.catalog import maker, text_names
from detect.text_reading import readings
from detect.text_recipes import TextRecipe, text_recipe
from detect.trained import Progress
from features.documents import Document, Status, text_key, text_status
from features.extractor import Extractor
from pipelines.cells import digest_of
from pipelines.corpora import Corpus, Row
from pipelines.extraction import extract_corpus
from pipelines.fitting import BandScores, DetectorFacts, Learner, Trainable
from pipelines.options import cache_directory
from pipelines.scorers import LanguageModels
from pipelines.text_training import TextLearner, checkpoint_folder, load_texts
from pipelines.training import FeatureLearner, Maker, TrainingRequest, layers_read, recipe_record
from pipelines.training_data import RowsProgress, TrainingData, backbone_record, corpora_record, load_training_data

D = TypeVar("D", bound=Trainable)


@dataclass(frozen=True)
class Version:
    """An attacked text and the number of the document that it was made of."""

    document: Document
    origin: int


@dataclass(frozen=True)
class HardenedLearner(Generic[D]):
    """A `fitting.Learner` that shows a detector the attacked versions of what it learns from, and of nothing else.

    Splits, calibration and figures are those of the documents alone; a version goes where its document goes.

    Attributes:
        base: learns from the documents followed by the versions.
        origins: (versions,) number of the document that each version was made of.
        not_shown: numbers of documents that are split and measured like all, but not learnt from.
    """

    base: Learner[D]
    origins: np.ndarray
    not_shown: frozenset[int] = frozenset()

    @property
    def documents(self) -> Sequence[Document]:
        """Without the versions."""
        return self.base.documents[: len(self.base.documents) - len(self.origins)]

    @property
    def labels(self) -> np.ndarray:
        """(n,) of 0 human and 1 machine, without the versions."""
        return self.base.labels[: len(self.documents)]

    def new(self) -> D:
        """An unfitted detector."""
        return self.base.new()

    def fit(self, detector: D, parts: Mapping[str, np.ndarray], progress: Progress, held_out: str | None) -> None:
        """Train an unfitted detector in place on these documents that are shown, and their versions."""
        self.base.fit(detector, {part: self._with_versions(own) for part, own in parts.items()}, progress, held_out)

    def band_scores(self, detector: D, indices: np.ndarray) -> BandScores:
        """A trained detector's scores of some documents at every length that they reach."""
        return self.base.band_scores(detector, indices)

    def _with_versions(self, indices: np.ndarray) -> np.ndarray:
        shown = indices[~np.isin(indices, list(self.not_shown))]
        return np.concatenate([shown, len(self.documents) + np.flatnonzero(np.isin(self.origins, shown))])


class Workshop(Protocol):
    """Labelled documents that detectors of one recipe learn from, with attacked versions or without."""

    facts: DetectorFacts
    failed: int

    @property
    def codec(self) -> Codec | None:
        """Form of the hidden states that detectors learn from, if any."""
        ...

    @property
    def recipe_record(self) -> Mapping[str, Any]:
        """The whole recipe behind the detector's name."""
        ...

    @property
    def documents(self) -> Sequence[Document]:
        """Each text once."""
        ...

    def learner(self, name: str, versions: Sequence[Version]) -> HardenedLearner[Any]:
        """What learns from the documents and from those versions that can be read and say something new.

        Args:
            name: of the detectors.
            versions: attacked texts.
        """
        ...


def new_versions(documents: Sequence[Document], versions: Sequence[Version]) -> list[Version]:
    """The versions whose text is that of no document and no version before, in order."""
    seen = {text_key(document.text) for document in documents}
    kept = []
    for version in versions:
        key = text_key(version.document.text) if text_status(version.document.text) is Status.OK else None
        if key is not None and key not in seen:
            seen.add(key)
            kept.append(version)
    return kept


def _origins(versions: Sequence[Version]) -> np.ndarray:
    return np.array([version.origin for version in versions], dtype=np.int64)


@dataclass
class FeatureWorkshop:
    """A workshop of detectors of features; those of versions go into the same store."""

    data: TrainingData
    make: Maker
    facts: DetectorFacts
    extractor: Extractor
    store: FeatureStore
    failed: int

    @property
    def codec(self) -> Codec | None:
        """Form of the hidden states."""
        return self.store.codec

    @property
    def recipe_record(self) -> Mapping[str, Any]:
        """The whole recipe."""
        return recipe_record(self.make, self.facts)

    @property
    def documents(self) -> Sequence[Document]:
        """Each text once."""
        return self.data.documents

    def learner(self, name: str, versions: Sequence[Version]) -> HardenedLearner[Any]:
        """What learns from the documents and from versions of them."""
        fresh = new_versions(self.documents, versions)
        extract_corpus((Row(version.document, Status.OK, {}) for version in fresh), self.extractor, self.store)
        keys = [text_key(version.document.text) for version in fresh]
        kept = [place for place, key in enumerate(keys) if key in self.store]  # the others are too short
        corpus = CachedCorpus(self.store, [*self.data.corpus.keys, *(keys[place] for place in kept)])
        documents = [*self.documents, *(fresh[place].document for place in kept)]
        base = FeatureLearner(TrainingData(corpus, documents, 0, 0), self.make, replace(self.facts, name=name))
        return HardenedLearner(base, _origins([fresh[place] for place in kept]))


@dataclass
class TextWorkshop:
    """A workshop of detectors that read texts."""

    documents: Sequence[Document]
    recipe: TextRecipe
    facts: DetectorFacts
    checkpoints: Path
    say: Callable[[str], None]
    failed: int
    codec: Codec | None = None

    @property
    def recipe_record(self) -> Mapping[str, Any]:
        """The whole recipe."""
        return asdict(self.recipe)

    def learner(self, name: str, versions: Sequence[Version]) -> HardenedLearner[Any]:
        """What learns from the documents and from versions of them."""
        fresh = new_versions(self.documents, versions)
        read = readings(self.recipe.new(name, self.say), [version.document.text for version in fresh])
        kept = [version for version, reading in zip(fresh, read, strict=True) if not reading.too_short]
        documents = [*self.documents, *(version.document for version in kept)]
        checkpoints = self.checkpoints / digest_of([text_key(document.text) for document in documents])
        base = TextLearner(documents, self.recipe, name, checkpoints, self.say)
        return HardenedLearner(base, _origins(kept))


def open_workshop(
    request: TrainingRequest,
    corpus: Corpus,
    models: LanguageModels,
    say: Callable[[str], None],
    rows_line: RowsProgress = lambda rows, total, tokens: None,
) -> Workshop:
    """Read labelled files for detectors of a recipe, and extract what is missing.

    Args:
        request: which detector, and how to read.
        corpus: the opened files.
        models: where the language model comes from, and the store that others write to as well.
        say: told of downloads.
        rows_line: told of reading.

    Raises:
        PawnError: for everything that can be wrong with recipe, data or backbone.
    """
    if request.detector in text_names():
        recipe = text_recipe(request.detector, seed=request.seed, **request.settings)
        total = corpus.count_rows()
        facts = DetectorFacts(request.called, {}, corpora_record(corpus))
        texts = load_texts(corpus, recipe.new(facts.name, say), total, rows_line)
        return TextWorkshop(texts.documents, recipe, facts, checkpoint_folder(request.output), say, texts.failed)
    make = maker(request.detector, seed=request.seed, **request.settings)
    request.check_observer()
    total = corpus.count_rows()
    layers = layers_read(request, models.backbone(request.backbone))
    extractor = models.extractor(request.backbone, request.max_length, layers, request.observer)
    codec = codec_named(request.codec, extractor.fingerprint.weights_id, extractor.fingerprint.layers)
    store = models.shared(FeatureStore(cache_directory(request.cache), extractor.fingerprint, codec))
    facts = DetectorFacts(request.called, backbone_record(extractor, store.codec), corpora_record(corpus))
    data, extraction = load_training_data(corpus, extractor, store, total, rows_line)
    return FeatureWorkshop(data, make, facts, extractor, store, extraction.failed)
