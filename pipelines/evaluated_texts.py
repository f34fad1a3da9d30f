"""What the files of an evaluation are to each other and to its detectors: repeats, shared sources, training files."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from detect.calibrated import CalibratedDetector
from detect.splits import sources
from detect.trained import TrainableDetector, TrainableTextDetector
from features.documents import Document, Status, text_key
from features.errors import InputError
from pipelines.corpora import Corpus, CorpusOptions, Row
from pipelines.figures import rate_name
from pipelines.fitting import training_record
from pipelines.layouts.files import file_sha256


@dataclass(frozen=True)
class EvaluatedTexts:
    """The opened files of an evaluation; each is a corpus of its own.

    Attributes:
        judged: what detectors are judged on, with the names that tables give them.
        fixing: what fixes thresholds, likewise; empty: each detector's own calibration.
        shared: keys of the texts of `fixing` that share a source with a judged one: no threshold is fixed on them.
        warnings: what a reader of the figures should know of the texts.
    """

    judged: Sequence[tuple[str, Corpus]]
    fixing: Sequence[tuple[str, Corpus]]
    shared: frozenset[str]
    warnings: Sequence[str]

    @classmethod
    @contextmanager
    def opened(
        cls, judged: Sequence[str], fixing: Sequence[str], columns: CorpusOptions, fprs: Sequence[float]
    ) -> "Iterator[EvaluatedTexts]":
        """Open the files, read them once, and close them at the end.

        Args:
            judged: paths of what is judged.
            fixing: paths of what fixes thresholds.
            columns: how to read them.
            fprs: rates of the thresholds.

        Raises:
            InputError: when too few human texts of other sources are left to fix a threshold at any of the rates.
            PawnError: as `Corpus.open` and `Corpus.rows`.
        """
        with ExitStack() as stack:
            of_judged, of_fixing = (
                [(Path(path).stem, stack.enter_context(Corpus.open([path], columns))) for path in paths]
                for paths in (judged, fixing)
            )
            shared, told = _compared([corpus for _, corpus in of_judged], [corpus for _, corpus in of_fixing], fprs)
            yield cls(of_judged, of_fixing, shared, told)

    def rows_that_fix(self, corpus: Corpus) -> Iterator[Row]:
        """The rows of a corpus of `fixing` but for texts that share a source with a judged one."""
        for row in corpus.rows():
            if row.status is not Status.OK or text_key(row.document.text) not in self.shared:
                yield row

    def known_to(self, detectors: Mapping[str, CalibratedDetector]) -> list[str]:
        """A warning for each file that a detector says it was trained on, by the SHA-256 in its record."""
        trained = {name: files for name, detector in detectors.items() if (files := _trained_on(detector))}
        if not trained:
            return []
        hashes = {path: file_sha256(path) for _, corpus in (*self.judged, *self.fixing) for path in corpus.files}
        of_judged = {path for _, corpus in self.judged for path in corpus.files}
        return [
            f"{name} was trained on {path.name} (the same SHA-256): "
            f"{'its figures' if path in of_judged else 'thresholds'} are of texts that it knows, not of unseen ones"
            for name, files in trained.items()
            for path, digest in hashes.items()
            if digest in files
        ]


def _compared(
    judged: Sequence[Corpus], fixing: Sequence[Corpus], fprs: Sequence[float]
) -> tuple[frozenset[str], list[str]]:
    """Keys of what is shared, and what is to be told of all texts; they are in memory no longer than this takes."""
    by_file = [list(_scorable(corpus)) for corpus in judged]
    told = _repeats_told(by_file)
    if not fixing:
        return frozenset(), told
    others = [document for corpus in fixing for document in _scorable(corpus)]
    shared = shared_with([document for file in by_file for document in file], others)
    return shared, told + _shared_told(others, shared, fprs)


def shared_with(judged: Sequence[Document], others: Sequence[Document]) -> frozenset[str]:
    """Keys of the other texts that share a source (`detect.splits.sources`) with a judged one."""
    numbers = sources([*judged, *others])
    taken = set(numbers[: len(judged)])
    found = zip(numbers[len(judged) :], others, strict=True)
    return frozenset(text_key(document.text) for number, document in found if number in taken)


def _scorable(corpus: Corpus) -> Iterator[Document]:
    return (row.document for row in corpus.rows() if row.status is Status.OK)


def _trained_on(detector: CalibratedDetector) -> set[str]:
    """SHA-256 of each file that a detector was trained on, as far as it keeps a record."""
    if not isinstance(detector.detector, TrainableDetector | TrainableTextDetector):
        return set()
    return {file["sha256"] for file in training_record(detector.detector).get("corpora", ())}


def _repeats_told(files: Sequence[Sequence[Document]]) -> list[str]:
    first: dict[str, int] = {}
    repeated = elsewhere = 0
    for place, documents in enumerate(files):
        for document in documents:
            key = text_key(document.text)
            repeated += key in first
            elsewhere += first.setdefault(key, place) != place
    if not repeated:
        return []
    return [
        f"{repeated:,} rows of --data hold the text of an earlier row ({elsewhere:,} of them that of another file); "
        "each row is counted"
    ]


def _shared_told(others: Sequence[Document], shared: frozenset[str], fprs: Sequence[float]) -> list[str]:
    """How many of the other texts are left out, if any; InputError when too few human ones remain."""
    kept = [document for document in others if text_key(document.text) not in shared]
    if (left_out := len(others) - len(kept)) == 0:
        return []
    human = sum(document.label == 0 for document in kept)
    told = f"{left_out:,} of {len(others):,} texts of --calibrate-on share a source with a judged text"
    if max(fprs) * (human + 1) < 1:  # as `Calibration.smallest_fpr` has it
        raise InputError(
            f"{told}, and thresholds are never fixed on what is judged: the {human:,} human texts left fix none at "
            f"{rate_name(max(fprs))}; give --calibrate-on human texts of other sources than those of --data, or leave "
            "it out for each detector's own calibration"
        )
    return [f"{told} (the same text, opening or group, or near-duplicates): no threshold is fixed on them"]
