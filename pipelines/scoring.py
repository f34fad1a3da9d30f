"""Texts -> scores, p-values and decisions: the library's `Scorer`, and the resumable run over files."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, overload

import polars as pl

from cache.codec_catalog import AUTO, codec_named
from cache.store import FeatureStore
from detect.calibrated import CalibratedDetector
from detect.catalog import DEFAULT_DETECTOR, load_detector
from detect.checked_scores import checked_scores
from detect.protocol import needs_hidden, reads_text
from features.backbone import Backbone
from features.documents import Status
from features.errors import DetectorError
from features.extractor import DEFAULT_MAX_LENGTH, Extractor
from features.registry import resolve
from pipelines.corpora import Corpus, Row
from pipelines.decisions import NOT_JUDGED, as_read, check_fpr, described, judged, results_frame
from pipelines.extraction import Item, block_features, blocks, load_extractor, prepare
from pipelines.results import ResultWriter, Summary
from pipelines.text_scoring import TextScorer


@dataclass(frozen=True, kw_only=True)
class ScoringSettings:
    """Which detector, and how to use it.

    Attributes:
        detector: a name of `pawn detectors`, a folder that `pawn train` wrote, or `module:Class` of one's own.
        fpr: share of human texts that may be flagged; None: 0.01 where the detector is calibrated.
        backbone: language model; None: the one that the detector was trained on.
        max_length: tokens of a text that are read.
        cache: folder of a feature cache to read and fill; None computes and forgets.
        device: "cpu" or "cuda"; None: cuda when there is one.
        observer: second language model, for detectors that compare two, or "@LAYER" for an early exit of the backbone;
            None: the one that the detector was trained with.
        normalise: read texts as their readers see them: invisible characters and letters of other scripts that stand
            for Latin ones, the usual tricks against detectors, are undone before anything else.

    A detector that reads the text itself has no use for backbone, max_length, cache and observer.
    """

    detector: str = DEFAULT_DETECTOR
    fpr: float | None = None
    backbone: str | None = None
    max_length: int = DEFAULT_MAX_LENGTH
    cache: str | Path | None = None
    device: str | None = None
    observer: str | None = None
    normalise: bool = True


class Scorer:
    """A detector with its language model: strings in, a Polars frame out.

    from pipelines import Scorer
    scorer = Scorer.load()
    frame = scorer.score(["first text", "second text"])
    """

    def __init__(
        self,
        detector: CalibratedDetector,
        extractor: Extractor,
        *,
        fpr: float | None = None,
        cache: str | Path | None = None,
        normalise: bool = True,
    ) -> None:
        """Put loaded parts together.

        Raises:
            UsageError: when the detector's calibration cannot support `fpr`, or there is none to support it.
            DetectorError: when the detector was trained on another language model, or reads texts.
        """
        if reads_text(detector.detector):
            raise DetectorError(f"detector {detector.detector.name} reads texts, not features; use TextScorer")
        detector.check_features(extractor.fingerprint.to_dict())
        self.fpr = check_fpr(detector, fpr)
        self.normalise = normalise
        self.detector = detector
        self.extractor = extractor
        self._reader = detector.detector
        self.codec = detector.codec or codec_named(AUTO, extractor.fingerprint.weights_id, extractor.fingerprint.layers)
        self.store = None if cache is None else FeatureStore(Path(cache), extractor.fingerprint, self.codec)

    @overload
    @classmethod
    def load(cls, settings: None = None, *, progress: Callable[[str], None] | None = None) -> "Scorer": ...

    @overload
    @classmethod
    def load(
        cls, settings: ScoringSettings, *, progress: Callable[[str], None] | None = None
    ) -> "Scorer | TextScorer": ...

    @classmethod
    def load(
        cls, settings: ScoringSettings | None = None, *, progress: Callable[[str], None] | None = None
    ) -> "Scorer | TextScorer":
        """Load a detector and its language model (fetched on first use), or one that reads texts and has none.

        Args:
            settings: which, and how to use them; default: the detector that ships, at 1% false positives.
            progress: told of downloads.
        """
        settings = settings or ScoringSettings()
        detector = load_detector(settings.detector, device=settings.device, say=progress)
        return _scorer(detector, settings, progress)

    def score(self, texts: Sequence[str | None]) -> pl.DataFrame:
        """One row for each text, in order: id (its place), status, n_tokens, truncated, score, p_value, is_machine.

        Raises:
            UsageError: for one string, whose characters would each be a text.
        """
        return results_frame(texts, self.score_rows)

    def score_rows(self, rows: Iterable[Row]) -> Iterator[list[dict[str, Any]]]:
        """Result rows of a corpus in its order, a block at a time: memory holds one block."""
        for block in blocks(prepare(as_read(rows, self.normalise), self.extractor, self.store)):
            yield self._score_block(block)

    def describe(self) -> dict[str, str]:
        """What produced a result: goes into the metadata of every output file."""
        return described(self.detector, self.fpr) | {
            "backbone": self.extractor.backbone.name,
            "features": json.dumps(self.extractor.fingerprint.to_dict()),
            "codec": self.codec.name,
            "normalised": json.dumps(self.normalise),
        }

    @property
    def tokens_done(self) -> int:
        """Tokens that were computed so far."""
        return self.extractor.tokens_done

    def _score_block(self, block: list[Item]) -> list[dict[str, Any]]:
        reads_hidden = needs_hidden(self._reader)
        features = block_features(block, self.extractor, self.store, self.codec, hidden=reads_hidden)
        found: dict[str, dict[str, Any]] = {}
        if features:
            scores = checked_scores(self._reader, list(features.values()))  # (distinct texts,)
            decisions = judged(self.detector, self.fpr, scores, [document.n_tokens for document in features.values()])
            for document, decision in zip(features.values(), decisions, strict=True):
                found[document.key] = {"truncated": document.truncated} | decision
        return [
            {"id": item.id, "status": str(item.status), "n_tokens": item.n_tokens}
            | (found[item.key] if item.status is Status.OK and item.key else NOT_JUDGED)
            | item.carried
            for item in block
        ]


def _scorer(
    detector: CalibratedDetector, settings: ScoringSettings, progress: Callable[[str], None] | None
) -> Scorer | TextScorer:
    """What scores by a loaded detector."""
    if reads_text(detector.detector):
        return TextScorer(detector, fpr=settings.fpr, normalise=settings.normalise)
    check_fpr(detector, settings.fpr)  # before anything slow
    observer = detector.check_observer(settings.observer)
    files = resolve(settings.backbone or detector.backbone, progress=progress)
    backbone = Backbone.load(files, device=settings.device)
    extractor = load_extractor(backbone, max_length=settings.max_length, layers=detector.layers, observer=observer)
    return Scorer(detector, extractor, fpr=settings.fpr, cache=settings.cache, normalise=settings.normalise)


def score_corpus(
    corpus: Corpus,
    out: Path | None,
    settings: ScoringSettings,
    *,
    say: Callable[[str], None] = lambda message: None,
    on_progress: Callable[[int, int, int], None] = lambda rows, total, tokens: None,
) -> Summary:
    """Score files into a file; a killed run is continued by the same call.

    Args:
        corpus: the opened inputs.
        out: the output file, or None for CSV on standard output.
        settings: the detector and how to use it.
        say: told what a person should know: what was found on disk, downloads, skipped files.
        on_progress: told rows done, rows in all and tokens computed, after every block.

    Raises:
        PawnError: for everything that can be wrong with inputs, outputs, detector or backbone.
    """
    detector = load_detector(settings.detector, device=settings.device, say=say)
    identity = {
        "corpus": corpus.identity(),
        "detector": detector.identity,
        "fpr": check_fpr(detector, settings.fpr),
        "normalise": settings.normalise,
        "version": version("pawn-detect"),
    }
    if not reads_text(detector.detector):
        identity |= {
            "backbone": settings.backbone or detector.backbone,
            "max_length": settings.max_length,
            "observer": detector.check_observer(settings.observer),
        }
    corpus.check_not_replaced(out)
    writer = ResultWriter(out, identity=identity, carried=corpus.carried)
    total = corpus.count_rows()
    _report_start(corpus, writer, total, say)
    if writer.already_complete:
        return writer.summary()
    scorer = _scorer(detector, settings, say)
    done = writer.rows_done
    on_progress(done, total, 0)
    for results in scorer.score_rows(corpus.rows(start=done)):
        writer.write_part(results)
        done += len(results)
        on_progress(done, total, scorer.tokens_done)
    return writer.finish(scorer.describe(), expected_rows=total)


def _report_start(corpus: Corpus, writer: ResultWriter, total: int, say: Callable[[str], None]) -> None:
    if corpus.skipped:
        names = ", ".join(str(path) for path in corpus.skipped[:3])
        say(f"Skipping {len(corpus.skipped)} files that are not texts or tables: {names} ...")
    if writer.already_complete:
        say("The output is complete already, for this input and these settings: nothing to do")
    elif writer.restarted:
        say("A run with other inputs or settings was left unfinished here: starting anew")
    elif writer.rows_done:
        say(f"Continuing after {writer.rows_done:,} of {total:,} rows")
