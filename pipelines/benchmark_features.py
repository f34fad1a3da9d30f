"""The features that a benchmark's detectors read: of one language model for most, of more where one asks for more."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cache.codec_catalog import codec_named
from cache.loader import CachedCorpus
from cache.store import FeatureStore
from features.extractor import Extractor
from pipelines.benchmark_config import BenchmarkConfig
from pipelines.corpora import Row, Status
from pipelines.extraction import extract_corpus, spread_layers
from pipelines.judging import LabelledCorpora
from pipelines.scorers import LanguageModels
from pipelines.training_data import RowsProgress, backbone_record

View = tuple[tuple[int, ...], str | None]
"""Layers and observer that detectors read; (): the last alone, None: no observer."""


@dataclass(frozen=True)
class Seen:
    """The documents of a benchmark as some detectors see them.

    Attributes:
        corpora: documents with the features that they read.
        identity: of the features; judgements by others are other files.
    """

    corpora: LabelledCorpora
    identity: Mapping[str, Any]


@dataclass(frozen=True)
class FeatureSource:
    """Where the features of a benchmark come from.

    Args:
        config: names backbone, observer, layers, codec and length.
        models: language models that are loaded already.
        cache: folder of the feature stores.
        progress: told of extraction.
    """

    config: BenchmarkConfig
    models: LanguageModels
    cache: Path
    progress: RowsProgress = lambda rows, total, tokens: None

    def check(self) -> None:
        """Open everything that a detector reads, before hours of extraction.

        Raises:
            PawnError: when a model, an observer or a layer is not there.
        """
        for view in {((), None), *self._views().values()}:
            self._opened(*view)

    def identity(self) -> dict[str, Any]:
        """Of the features of the backbone alone: the fingerprint and the codec, JSON-able."""
        return _identity(*self._opened((), None))

    def plain(self) -> Seen:
        """All documents with the features of the backbone alone; which can be used is decided here.

        Raises:
            InputError: when none can.
        """
        extractor, store = self._opened((), None)
        corpora = LabelledCorpora.load(self.config.every_corpus, extractor, store, self.progress, self.config.share)
        return Seen(corpora, _identity(extractor, store))

    def others(self, plain: Seen, say: Callable[[str], None]) -> dict[str, Seen]:
        """The same documents for detectors that read more than the backbone's last layer, by the label of each."""
        views = self._views()
        found: dict[View, Seen] = {}
        for view in dict.fromkeys(views.values()):
            say(_in_words(*view))
            found[view] = self._again(plain.corpora, *self._opened(*view))
        return {label: found[view] for label, view in views.items()}

    def _views(self) -> dict[str, View]:
        """What is read by each detector that reads more than the backbone's last layer, by its label."""
        views = {}
        for contender in self.config.detectors:
            layers = self._layers() if contender.reads_layers() else ()
            observer = self.config.observer if contender.reads_observer() else None
            if layers or observer:
                views[contender.label] = layers, observer
        return views

    def _layers(self) -> tuple[int, ...]:
        return self.config.layers or tuple(spread_layers(self.models.backbone(self.config.backbone)))

    def _opened(self, layers: Sequence[int], observer: str | None) -> tuple[Extractor, FeatureStore]:
        config = self.config
        extractor = self.models.extractor(config.backbone, config.max_length, layers, observer)
        codec = codec_named(config.codec, extractor.fingerprint.weights_id, extractor.fingerprint.layers)
        return extractor, FeatureStore(self.cache, extractor.fingerprint, codec)

    def _again(self, corpora: LabelledCorpora, extractor: Extractor, store: FeatureStore) -> Seen:
        documents, keys = corpora.data.documents, corpora.data.corpus.keys
        rows = (Row(document, Status.OK, {}) for document in documents)
        extract_corpus(rows, extractor, store, lambda done, tokens: self.progress(done, len(keys), tokens))
        features = replace(corpora.data, corpus=CachedCorpus(store, keys))
        again = replace(corpora, data=features, backbone=backbone_record(extractor, store.codec))
        return Seen(again, _identity(extractor, store))


def _identity(extractor: Extractor, store: FeatureStore) -> dict[str, Any]:
    return {"fingerprint": extractor.fingerprint.to_dict(), "codec": store.codec.name}


def _in_words(layers: Sequence[int], observer: str | None) -> str:
    parts = [f"hidden states of layers {', '.join(map(str, layers))}"] if layers else []
    return "Features of " + " and ".join(parts + ([f"observer {observer}"] if observer else []))
