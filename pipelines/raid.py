"""RAID (Dugan et al. 2024, 2405.07940): detectors inside its package, its metric, and leaderboard submissions.

The package `raid-bench` asks a detector for one number a text, higher for machine text. It finds the threshold of each
domain by a search that starts at the mean human score with steps of 0.5, fifty at most: scores must be of the order
of 1, and must not be rounded or clamped, or the rate asked for is never met and the figure becomes null. What is given
is therefore a logistic curve of the score, in [0, 1] and in the scores' order; nothing is rounded.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from numpy.typing import ArrayLike

from detect.calibration import Calibration
from detect.catalog import load_detector
from detect.measures import fpr_at_threshold, threshold_at_fpr
from detect.probability import PlattScaling
from features.errors import InputError, UsageError
from pipelines.corpora import Corpus, CorpusOptions
from pipelines.decisions import described
from pipelines.figures import rate_name
from pipelines.parts import disk_errors, publish, publish_json
from pipelines.scoring import Scorer, ScoringSettings, score_corpus
from pipelines.tracked_data import record_inputs
from pipelines.tracking import UNTRACKED, Tracker

UNSCORED = 0.0
"""What a text without a score gets (empty, too short): nothing says that it is machine-written.

RAID drops every slice that has a text without a score, and all slices of a domain where it is a human one."""

PREDICTIONS, METADATA, SCORES = "predictions.json", "metadata.json", "scores.parquet"
"""Files of a submission's folder: the leaderboard asks for the first two."""

RAID_FPRS = (0.05, 0.01)
SLICED_BY = ("domain", "model", "decoding", "repetition_penalty", "attack")
ALL = "all"
_LINKS = ("website", "paper_link", "huggingface_link", "github_link")


def raid_scale(scores: ArrayLike) -> PlattScaling:
    """A curve that puts the middle of some scores at 0.5 and a standard deviation at a step of 1 of the log-odds.

    For want of labelled texts to fit probabilities on; RAID reads no more than the order. The median and the quartiles
    say where the middle is, so that stray scores do not.

    Raises:
        InputError: when no score is a finite number.
    """
    values = np.asarray(scores, dtype=np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        raise InputError("no text has a score, so there is nothing to scale; see the column status of the scores")
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    spread = (high - low) / 1.349 or values.std() or 1.0  # 1.349 deviations lie between the quartiles of a normal
    return PlattScaling(slope=float(1 / spread), intercept=float(-middle / spread))


def raid_detector(scorer: Scorer, scale: PlattScaling | None = None) -> Callable[[list[str]], list[float]]:
    """A detector as `raid.run_detection` takes it: texts to numbers in [0, 1], unrounded, higher for machine text.

    Args:
        scorer: any detector with its language model.
        scale: scores to numbers; default: `raid_scale` of the detector's calibration scores, or, for one without
            calibration, of the texts of the call (the package makes one call).
    """

    def detect(texts: list[str]) -> list[float]:
        frame = scorer.score(texts)
        curve = scale or _scale_of(scorer.detector.calibration, frame["score"])
        return _as_numbers(frame["score"], curve).tolist()

    return detect


@dataclass(frozen=True, kw_only=True)
class RaidMetadata:
    """What `metadata.json` of a submission says; the links may be empty.

    Raises:
        UsageError: when the name or the contact is missing, or the date is none.
    """

    detector_name: str
    contact_info: str
    date_released: str = field(default_factory=lambda: datetime.now(UTC).date().isoformat())
    website: str = ""
    paper_link: str = ""
    huggingface_link: str = ""
    github_link: str = ""

    def __post_init__(self) -> None:
        for name in ("detector_name", "contact_info"):
            if not getattr(self, name).strip():
                raise UsageError(f"the leaderboard asks for a {name}; got an empty one")
        try:
            date.fromisoformat(self.date_released)
        except ValueError as error:
            raise UsageError(f"expected date_released as YYYY-MM-DD, got {self.date_released!r}") from error


@dataclass(frozen=True)
class Submission:
    """What `raid_submission` wrote: `unscored` of `rows` texts have no score and got `UNSCORED`."""

    folder: Path
    rows: int
    unscored: int


def raid_submission(
    file: Path | str,
    settings: ScoringSettings,
    folder: Path,
    metadata: RaidMetadata,
    *,
    scale: PlattScaling | None = None,
    say: Callable[[str], None] = lambda message: None,
    on_progress: Callable[[int, int, int], None] = lambda rows, total, tokens: None,
    tracker: Tracker = UNTRACKED,
) -> Submission:
    """RAID's test file to `predictions.json` and `metadata.json`, streaming, as a run.

    The scores are kept in `scores.parquet` beside them; a killed run is continued by the same call.

    Args:
        file: RAID's `test.csv` (columns `id` and `generation`; it has no labels).
        settings: which detector, and how to use it.
        folder: of the submission; its name is the submission's on the leaderboard.
        metadata: who submits what.
        scale: as for `raid_detector`; default there too, over all texts for a detector without calibration.
        say: told what a person should know.
        on_progress: told rows done, rows in all and tokens computed.
        tracker: makes the run, of the kind "evaluate", which keeps the submission's files.

    Raises:
        InputError: when two rows have the same id, which RAID refuses, or no text has a score.
        PawnError: for everything that can be wrong with the file, the folder, the detector or the backbone.
    """
    folder = Path(folder)
    calibration, judged = _of_detector(settings, say)
    with disk_errors(folder, "then run the same command again"):
        folder.mkdir(parents=True, exist_ok=True)
    asked = {"raid": str(file), "output": str(folder), "scale": scale, "metadata": asdict(metadata)}
    with tracker.run("evaluate", folder.name, asked | {"scoring": asdict(settings), "detectors": judged}) as run:
        record_inputs(run, [str(file)], "evaluation")
        with Corpus.open([str(file)], CorpusOptions(text_column="generation", id_column="id")) as corpus:
            summary = score_corpus(corpus, folder / SCORES, settings, say=say, on_progress=on_progress)
        if repeated := summary.duplicate_ids:
            raise InputError(f"{file}: {repeated} rows have the id of an earlier row; RAID takes each id once")
        scores = pl.read_parquet(folder / SCORES, columns=["score"])["score"].drop_nulls()
        curve = scale or _scale_of(calibration, scores)
        write_submission(_submission_rows(folder / SCORES, curve), folder / PREDICTIONS)
        given = {name: value for name, value in asdict(metadata).items() if value or name in _LINKS}
        publish_json(folder / METADATA, given)
        run.metrics({"texts": summary.rows, "unscored": summary.failed, **_moments(scores.to_numpy())})
        for name in (PREDICTIONS, METADATA, SCORES):
            run.file(folder / name)
    return Submission(folder, summary.rows, summary.failed)


def _of_detector(settings: ScoringSettings, say: Callable[[str], None]) -> tuple[Calibration | None, dict[str, Any]]:
    """A detector's calibration, and what a run says of it by its name; the detector itself is let go."""
    detector = load_detector(settings.detector, device=settings.device, say=say)
    return detector.calibration, {detector.detector.name: described(detector, settings.fpr)}


def _moments(scores: np.ndarray) -> dict[str, float]:
    """What tells two runs apart where no label says how good they are."""
    return {"score mean": float(scores.mean()), "score sd": float(scores.std())} if len(scores) else {}


def write_submission(scores: Iterable[tuple[str, float]], path: Path) -> int:
    """The leaderboard's `predictions.json`, a list of {"id", "score"}, written as the pairs come; how many there were.

    Raises:
        InputError: when a score is not a finite number: JSON has no such thing, and RAID drops its slice.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    count = 0
    with disk_errors(path, "then run the same command again"), temporary.open("w", encoding="utf-8") as file:
        file.write("[")
        for name, score in scores:
            if not np.isfinite(score):
                raise InputError(f"text {name} has the score {score}; the leaderboard needs a finite number for each")
            file.write((",\n" if count else "\n") + json.dumps({"id": name, "score": float(score)}))
            count += 1
        file.write("\n]\n")
    publish(temporary, path)
    return count


def raid_thresholds(rows: pl.DataFrame, fpr: float) -> pl.DataFrame:
    """Of each domain, the smallest threshold that flags at most a share of its un-attacked human texts.

    `fpr` is the share that it flags. The threshold is null where it flags none of them: RAID does not count a rate of
    zero as met. RAID's own search stops anywhere between the same two human scores, so its TPR can be lower by the
    machine texts between them.

    Args:
        rows: as for `raid_figures`.
        fpr: the rate aimed at.

    Returns:
        `domain`, `threshold`, `fpr`.

    Raises:
        InputError: when a domain has no such human text.
    """
    found = []
    for (domain,), own in rows.partition_by("domain", as_dict=True, maintain_order=True).items():
        human = own.filter((pl.col("model") == "human") & (pl.col("attack") == "none"))["score"].to_numpy()
        if not len(human):
            raise InputError(f"domain {domain} has no un-attacked human text to find a threshold on")
        labels, scores = np.append(np.zeros(len(human)), 1), np.append(human, 0.0)  # the measures ask for both classes
        threshold = threshold_at_fpr(labels, scores, fpr)
        reached = fpr_at_threshold(labels, scores, threshold)
        found.append({"domain": domain, "threshold": threshold if reached > 0 else None, "fpr": reached})
    return pl.DataFrame(found, schema={"domain": pl.String, "threshold": pl.Float64, "fpr": pl.Float64})


def raid_figures(
    rows: pl.DataFrame, fprs: Sequence[float] = RAID_FPRS, thresholds: Sequence[pl.DataFrame] | None = None
) -> pl.DataFrame:
    """RAID's figures of every slice that has machine texts: TPR at thresholds of each domain, and AUROC.

    AUROC of a slice: its machine texts against all human texts of its domain, attacked ones included (of all domains,
    for a slice of all).

    Args:
        rows: `domain`, `model` ("human" or the generator: the label), `attack`, `score` without nulls; sliced by
            `decoding` and `repetition_penalty` too where these are there.
        fprs: rates of the thresholds.
        thresholds: one frame as `raid_thresholds` gives for each rate; default: those.

    Returns:
        A row a slice: its value of each of `SLICED_BY` that is there, or "all"; `texts`, `auroc`, and `tpr@x`, null
        where the domain (for all: any domain) has no threshold.

    Raises:
        InputError: when a score is null or NaN, or a domain has no human text.
    """
    if bad := int(rows.select(pl.col("score").is_null() | pl.col("score").is_nan()).to_series().sum()):
        raise InputError(f"{bad} of {len(rows)} texts have no score; RAID drops their slices: score every row")
    machine = rows.filter(pl.col("model") != "human")
    human = rows.filter(pl.col("model") == "human")
    limits = thresholds if thresholds is not None else [raid_thresholds(rows, fpr) for fpr in fprs]
    columns = [f"tpr@{rate_name(fpr)}" for fpr in fprs]
    for name, limit in zip(columns, limits, strict=True):
        machine = machine.join(limit.select("domain", pl.col("threshold").alias(name)), on="domain", how="left")
    machine = machine.with_columns(pl.col("score").ge(pl.col(name)).cast(pl.Float64).alias(name) for name in columns)
    by_domain = [
        _wins(own, human.filter(domain=domain))
        for (domain,), own in machine.partition_by("domain", as_dict=True).items()
    ]
    machine = _wins(pl.concat(by_domain).rename({"wins": "wins_in_domain"}), human)
    sliced_by = [name for name in SLICED_BY if name in rows.columns]
    missed = {name: limit["threshold"].null_count() > 0 for name, limit in zip(columns, limits, strict=True)}
    kinds = (chosen for number in range(len(sliced_by) + 1) for chosen in combinations(sliced_by, number))
    parts = [_slice_figures(machine, sliced_by, chosen, missed) for chosen in kinds]
    return pl.concat(parts).sort(sliced_by)


def _slice_figures(
    machine: pl.DataFrame, sliced_by: Sequence[str], chosen: Sequence[str], missed: dict[str, bool]
) -> pl.DataFrame:
    """The figures of the slices that some columns make, "all" in the others."""
    auroc = pl.col("wins_in_domain" if "domain" in chosen else "wins").mean()
    tprs = {
        name: pl.col(name).mean() if "domain" in chosen else pl.lit(None if lacking else 0.0) + pl.col(name).mean()
        for name, lacking in missed.items()
    }
    grouped = machine.with_columns(pl.lit(ALL).alias(name) for name in sliced_by if name not in chosen)
    return grouped.group_by(sliced_by).agg(texts=pl.len(), auroc=auroc, **tprs)


def _wins(machine: pl.DataFrame, human: pl.DataFrame) -> pl.DataFrame:
    """The share of human texts that each machine text outscores, ties half: the mean over texts is their AUROC."""
    if not len(human):
        raise InputError(f"domain {machine['domain'][0]} has no human text to be compared with")
    ranked, scores = np.sort(human["score"].to_numpy()), machine["score"].to_numpy()
    below, not_above = (np.searchsorted(ranked, scores, side=side) for side in ("left", "right"))
    return machine.with_columns(wins=pl.Series((below + not_above) / (2 * len(ranked))))


def _scale_of(calibration: Calibration | None, scores: pl.Series) -> PlattScaling:
    return raid_scale(scores.drop_nulls().to_numpy() if calibration is None else calibration.scores)


def _as_numbers(scores: pl.Series, scale: PlattScaling) -> np.ndarray:
    """In [0, 1]; `UNSCORED` where there is no score."""
    known = scores.is_not_null().to_numpy()
    numbers = np.full(len(scores), UNSCORED)
    numbers[known] = scale.probabilities(scores.drop_nulls().to_numpy())
    return numbers


def _submission_rows(scores: Path, scale: PlattScaling) -> Iterator[tuple[str, float]]:
    """Ids and numbers of a file of results, a batch at a time."""
    with pq.ParquetFile(scores) as file:
        for batch in file.iter_batches(columns=["id", "score"]):
            frame = pl.DataFrame(batch)
            yield from zip(frame["id"], _as_numbers(frame["score"], scale).tolist(), strict=True)
