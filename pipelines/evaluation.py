"""Detectors that are ready, on labelled files that they never saw -> judgements."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import tee
from pathlib import Path
from typing import Any

import polars as pl

from detect.calibration import Calibration
from detect.splits import sources
from features.documents import Document, Status
from features.errors import InputError
from pipelines.corpora import Corpus, CorpusOptions
from pipelines.figures import JUDGEMENT_SCHEMA, OWN_CALIBRATION, figures_table
from pipelines.means import means_with_intervals
from pipelines.protocols import attack_name, generator_name
from pipelines.reports import headline, write_report
from pipelines.scorers import AnyScorer, load_scorers
from pipelines.scoring import ScoringSettings
from pipelines.tracked_data import record_inputs
from pipelines.tracking import UNTRACKED, Tracker

PROTOCOL = "evaluation"
LABELLED = CorpusOptions(labelled=True)


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest:
    """What `pawn evaluate` was asked for.

    Attributes:
        detectors: names of `pawn detectors` that need no training, folders, or `module:Class`.
        inputs: labelled files; each is a corpus of its own.
        output: folder for scores, tables and pictures.
        calibrate_on: labelled files that fix thresholds; empty: each detector's own calibration.
        columns: how to read the files.
        backbone: language model; None: each detector's own.
        cache: folder of a feature cache.
        max_length: tokens of a text that are read.
        device: "cpu" or "cuda"; None: cuda when there is one.
        observer: second language model, for detectors that compare two; None: the one that each was trained with.
        fprs: false-positive rates that figures are given at.
        resamples: of the bootstrap.
    """

    detectors: Sequence[str]
    inputs: Sequence[str]
    output: Path
    calibrate_on: Sequence[str] = ()
    columns: CorpusOptions = LABELLED
    backbone: str | None = None
    cache: Path | None = None
    max_length: int = 512
    device: str | None = None
    observer: str | None = None
    fprs: tuple[float, ...] = (0.001, 0.01, 0.05)
    resamples: int = 1000


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation gave.

    Attributes:
        judgements: rows of `JUDGEMENT_SCHEMA`.
        figures: what `figures_table` makes of them.
        means: what `means_with_intervals` makes of both.
        unscored: rows without a score, by detector and status.
    """

    judgements: pl.DataFrame
    figures: pl.DataFrame
    means: pl.DataFrame
    unscored: Mapping[str, Mapping[str, int]]


Progress = Callable[[str, int, int], None]
"""Called with what is being scored, rows done and rows in all."""


def run_evaluation(
    request: EvaluationRequest,
    *,
    say: Callable[[str], None],
    progress: Progress = lambda what, rows, total: None,
    tracker: Tracker = UNTRACKED,
) -> Evaluation:
    """Score, judge, write the report, record the run.

    Raises:
        PawnError: for everything that can be wrong with detectors, files or the disk.
    """
    scorers = load_scorers(
        request.detectors,
        ScoringSettings(
            backbone=request.backbone,
            max_length=request.max_length,
            cache=request.cache,
            device=request.device,
            observer=request.observer,
        ),
        say,
    )
    settings = asdict(request) | {"detectors": {name: scorer.describe() for name, scorer in scorers.items()}}
    with tracker.run("evaluate", request.output.name, _jsonable(settings)) as run:
        record_inputs(run, request.inputs, "evaluation", request.columns.input_format)
        record_inputs(run, request.calibrate_on, "calibration", request.columns.input_format)
        frames, unscored = [], {}
        for name, scorer in scorers.items():
            frame, missing = _judged(name, scorer, request, progress)
            frames.append(frame)
            if missing:
                unscored[name] = dict(missing)
                say(f"{name}: {missing.total():,} rows have no score: {dict(missing)}")
            if not (frame["part"] == "calibration").any():
                say(f"{name} has no calibration: give --calibrate-on for figures at fixed thresholds")
        judgements = pl.concat(frames)
        figures = figures_table(judgements, fprs=request.fprs, resamples=request.resamples)
        means = means_with_intervals(figures, judgements, fprs=request.fprs, resamples=request.resamples)
        written = write_report(judgements, figures, means, request.output, f"Evaluation: {', '.join(request.inputs)}")
        run.metrics(headline(means))
        for path in written:
            run.file(path, "plots" if path.parent.name == "plots" else "")
    return Evaluation(judgements, figures, means, unscored)


def _judged(
    name: str, scorer: AnyScorer, request: EvaluationRequest, progress: Progress
) -> tuple[pl.DataFrame, Counter[str]]:
    missing: Counter[str] = Counter()
    test = _scored(scorer, request.inputs, request.columns, missing, lambda rows, total: progress(name, rows, total))
    if not test:
        raise InputError(f"no row of {', '.join(request.inputs)} can be scored: {dict(missing)}")
    frames = [_frame(name, "test", test)]
    if request.calibrate_on:
        fixing = _scored(
            scorer, request.calibrate_on, request.columns, missing, lambda rows, total: progress(name, rows, total)
        )
        frames.insert(0, _frame(name, "calibration", fixing))
    elif (own := scorer.detector.calibration) is not None:
        frames.insert(0, _own_calibration(name, own))
    return pl.concat(frames), missing


Scored = list[tuple[str, Document, int | None, float]]
"""Corpus, document, tokens and score."""


def _scored(
    scorer: AnyScorer,
    inputs: Iterable[str],
    columns: CorpusOptions,
    missing: Counter[str],
    progress: Callable[[int, int], None],
) -> Scored:
    """What a detector gives every row that can be scored; the others are counted by their status."""
    found: Scored = []
    for path in inputs:
        with Corpus.open([path], columns) as corpus:
            total, done = corpus.count_rows(), 0
            rows, scored = tee(corpus.rows())  # read once: what waits in between is a block
            for block in scorer.score_rows(scored):
                for result, row in zip(block, rows, strict=False):  # the block ends first
                    document = row.document
                    if result["status"] == Status.OK:
                        found.append((Path(path).stem, document, result["n_tokens"], result["score"]))
                    else:
                        missing[result["status"]] += 1
                done += len(block)
                progress(done, total)
    return found


def _frame(name: str, part: str, scored: Scored) -> pl.DataFrame:
    documents = [document for _, document, _, _ in scored]
    return pl.DataFrame(
        {
            "detector": name,
            "protocol": PROTOCOL,
            "held_out": "nothing",
            "seed": 0,
            "part": part,
            "id": [document.id for document in documents],
            "source": sources(documents),
            "corpus": [corpus for corpus, _, _, _ in scored],
            "domain": [str(document.domain) for document in documents],
            "generator": [generator_name(document) if document.label else "human" for document in documents],
            "attack": [attack_name(document) for document in documents],
            "label": [document.label for document in documents],
            "n_tokens": [n_tokens or 0 for _, _, n_tokens, _ in scored],
            "score": [score for _, _, _, score in scored],
        },
        schema=JUDGEMENT_SCHEMA,
    )


def _own_calibration(name: str, own: Calibration) -> pl.DataFrame:
    """A detector's own human scores, each a source of its own: nothing else is kept of those texts."""
    count = len(own.scores)
    domains = [None] * count if own.domains is None else own.domains.tolist()
    n_tokens = [None] * count if own.n_tokens is None else own.n_tokens.tolist()
    rows: Scored = [
        (OWN_CALIBRATION, Document(id=f"calibration:{place}", text="", label=0, domain=domain), length, score)
        for place, (domain, length, score) in enumerate(zip(domains, n_tokens, own.scores.tolist(), strict=True))
    ]
    return _frame(name, "calibration", rows).with_columns(source=pl.int_range(count, dtype=pl.Int64))


def _jsonable(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in settings.items()}
