"""Detectors that are ready, on labelled files that they never saw -> judgements."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import tee
from pathlib import Path
from typing import Any

import polars as pl

from detect.calibration import Calibration
from detect.splits import sources
from features.documents import Document, Status
from features.errors import DetectorError, InputError
from pipelines.corpora import Corpus, CorpusOptions, Row
from pipelines.evaluated_texts import EvaluatedTexts
from pipelines.figures import JUDGEMENT_SCHEMA, OWN_CALIBRATION, figures_table
from pipelines.fitting import check_output
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
        failed: why each detector that failed is left out of all of these.
    """

    judgements: pl.DataFrame
    figures: pl.DataFrame
    means: pl.DataFrame
    unscored: Mapping[str, Mapping[str, int]]
    failed: Mapping[str, str]


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

    A detector that fails on the texts is told and left out, as long as another one does not.

    Raises:
        DetectorError: when every detector fails.
        PawnError: for everything else that can be wrong with detectors, files or the disk.
    """
    check_output(request.output)
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
    files = EvaluatedTexts.opened(request.inputs, request.calibrate_on, request.columns, request.fprs)
    with files as texts, tracker.run("evaluate", request.output.name, _jsonable(settings)) as run:
        record_inputs(run, request.inputs, "evaluation", request.columns.input_format)
        record_inputs(run, request.calibrate_on, "calibration", request.columns.input_format)
        warnings = [*texts.known_to({name: scorer.detector for name, scorer in scorers.items()}), *texts.warnings]
        for warning in warnings:
            say(f"Warning: {warning}")
        judgements, unscored, failed = _judged_by_each(scorers, texts, say, progress)
        warnings += [f"{name} is left out: {why}" for name, why in failed.items()]
        figures = figures_table(judgements, fprs=request.fprs, resamples=request.resamples)
        means = means_with_intervals(figures, judgements, fprs=request.fprs, resamples=request.resamples)
        title = f"Evaluation: {', '.join(request.inputs)}"
        written = write_report(judgements, figures, means, request.output, title, request.fprs, warnings)
        run.metrics(headline(means))
        for path in written:
            run.file(path, "plots" if path.parent.name == "plots" else "")
    return Evaluation(judgements, figures, means, unscored, failed)


def _judged_by_each(
    scorers: Mapping[str, AnyScorer], texts: EvaluatedTexts, say: Callable[[str], None], progress: Progress
) -> tuple[pl.DataFrame, dict[str, dict[str, int]], dict[str, str]]:
    """The judgements of all detectors that do not fail, what each gave no score, and why others are left out."""
    frames, unscored, failed = [], {}, {}
    for name, scorer in scorers.items():
        try:
            frame, missing = _judged(name, scorer, texts, progress)
        except (DetectorError, InputError) as error:
            failed[name] = str(error)
            say(f"{name} is left out: {error}")
            continue
        frames.append(frame)
        if missing:
            unscored[name] = dict(missing)
            say(f"{name}: {missing.total():,} rows have no score: {dict(missing)}")
        if not (frame["part"] == "calibration").any():
            say(f"{name} has no calibration: give --calibrate-on for figures at fixed thresholds")
    if not frames:
        raise DetectorError("every detector failed: " + "; ".join(failed.values()))
    return pl.concat(frames), unscored, failed


def _judged(
    name: str, scorer: AnyScorer, texts: EvaluatedTexts, progress: Progress
) -> tuple[pl.DataFrame, Counter[str]]:
    missing: Counter[str] = Counter()

    def told(rows: int, total: int) -> None:
        progress(name, rows, total)

    test = _scored(scorer, texts.judged, Corpus.rows, missing, told)
    if not test:
        named = ", ".join(corpus for corpus, _ in texts.judged)
        raise InputError(f"no row of {named} can be scored: {dict(missing)}")
    frames = [_frame(name, "test", test)]
    if texts.fixing:
        fixing = _scored(scorer, texts.fixing, texts.rows_that_fix, missing, told)
        frames.insert(0, _frame(name, "calibration", fixing))
    elif (own := scorer.detector.calibration) is not None:
        frames.insert(0, _own_calibration(name, own))
    found = pl.concat(frames)
    if count := len(odd := found.filter(~pl.col("score").is_finite())):
        raise DetectorError(
            f"detector {name} gives {count:,} of {len(found):,} texts no finite number, the first {odd['score'][0]} "
            f"for {odd['id'][0]}; no figure can be made of that"
        )
    return found, missing


Scored = list[tuple[str, Document, int | None, float]]
"""Corpus, document, tokens and score."""


def _scored(
    scorer: AnyScorer,
    corpora: Iterable[tuple[str, Corpus]],
    rows_of: Callable[[Corpus], Iterator[Row]],
    missing: Counter[str],
    progress: Callable[[int, int], None],
) -> Scored:
    """What a detector gives every row that can be scored; the others are counted by their status."""
    found: Scored = []
    for name, corpus in corpora:
        total, done = sum(1 for _ in rows_of(corpus)), 0
        rows, scored = tee(rows_of(corpus))  # read once: what waits in between is a block
        for block in scorer.score_rows(scored):
            for result, row in zip(block, rows, strict=False):  # the block ends first
                document = row.document
                if result["status"] == Status.OK:
                    found.append((name, document, result["n_tokens"], result["score"]))
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
    # Domains as they are: one that knows none decides by all its scores alike, and so must these.
    return _frame(name, "calibration", rows).with_columns(
        source=pl.int_range(count, dtype=pl.Int64), domain=pl.Series(domains, dtype=pl.String)
    )


def _jsonable(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Path) else value for name, value in settings.items()}
