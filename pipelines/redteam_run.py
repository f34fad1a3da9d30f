"""`pawn redteam` from beginning to end: texts before, fine-tuning, texts after, figures, report, record."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from detect.adversarial.quality import MeaningEncoder, Quality, Verdict, judge
from detect.protocol import Detector, TextDetector
from detect.trained import TrainableDetector, TrainableTextDetector
from features.backbone import Backbone
from features.documents import Document
from features.registry import resolve
from pipelines.extraction import load_extractor
from pipelines.figures import figures_table
from pipelines.parts import disk_errors, publish_json
from pipelines.provenance import plain
from pipelines.redteam import RedTeam, RedTeamRequest, Say, Steps, prepare
from pipelines.redteam_judging import AFTER, BEFORE, Compared, chance_similarity, detection, quality, retrained
from pipelines.redteam_report import write_redteam_report
from pipelines.redteam_texts import as_documents
from pipelines.scoring import Scorer
from pipelines.tracked_data import record_inputs
from pipelines.tracking import UNTRACKED, Run, Tracker

FPRS = (0.01, 0.05)
RECORD_FILE = "redteam.json"
WRITERS = ("human", BEFORE, AFTER)
"""Of the texts that are compared."""


@dataclass(frozen=True)
class RedTeamResult:
    """What a red-team run found.

    Attributes:
        verdict: on the attacked detector.
        figures: of every detector before and after, as `figures_table` gives them.
        judgements: that they are of.
        retrained: the same of new detectors; None where none was trained.
        qualities: of the human, before and after texts.
        chance: similarity of meaning of continuations of different prompts.
        curve: points of the training.
        attacked: name of the attacked detector.
        notes: what a reader of the figures must know.
    """

    verdict: Verdict
    figures: pl.DataFrame
    judgements: pl.DataFrame
    retrained: pl.DataFrame | None
    qualities: Mapping[str, Quality]
    chance: float
    curve: Sequence[Mapping[str, float]]
    attacked: str
    notes: Sequence[str]


def run_redteam(
    request: RedTeamRequest,
    *,
    say: Say,
    steps: Steps = lambda what, done, total: None,
    tracker: Tracker = UNTRACKED,
) -> RedTeamResult:
    """Fine-tune, compare, write the report, record the run; a run that was stopped is continued by the same call.

    Args:
        request: what to do.
        say: told what a person should know.
        steps: told of progress.
        tracker: makes the run; each detector is a child of it.

    Raises:
        PawnError: for everything that can be wrong with data, detectors, models or the disk.
    """
    team = prepare(request, say, steps)
    with tracker.run("redteam", request.output.name, plain(request)) as run:
        record_inputs(run, request.inputs, "prompts", request.columns.input_format)
        team.check()
        team.texts("heldout-before")
        if request.retrain:
            team.texts("train-before")
        curve = team.train(run)
        result = _compare(team, curve)
        _record(result, run)
        written = write_redteam_report(team, result)
        with disk_errors(request.output, "then repeat the command: everything but the report is kept"):
            publish_json(request.output / RECORD_FILE, _summary(team, result))
        for path in (*written, request.output / RECORD_FILE, request.output / "adapter"):
            run.file(path)
    return result


def _compare(team: RedTeam, curve: Sequence[Mapping[str, float]]) -> RedTeamResult:
    """Every figure of the run."""
    request, attacked = team.request, next(iter(team.scorers))
    documents = {who: _documents(team, f"heldout-{who}") for who in WRITERS}
    compared = Compared(calibration=_documents(team, "calibration-human"), **documents)
    found, unscored = [], {}
    for name, scorer in team.scorers.items():
        team.say(f"scoring by {name}")
        own, unscored[name] = detection(name, scorer, compared)
        found.append(own)
    judgements = pl.concat(found)
    figures = figures_table(judgements, fprs=FPRS, slices=(), resamples=request.resamples)
    qualities, chance = _qualities(team, unscored[attacked])
    auroc = {row["held_out"]: row["auroc"] for row in figures.filter(detector=attacked).iter_rows(named=True)}
    after = float("nan") if auroc.get(AFTER) is None else auroc[AFTER]
    return RedTeamResult(
        verdict=judge(auroc[BEFORE], after, qualities["human"], qualities[BEFORE], qualities[AFTER]),
        figures=figures,
        judgements=judgements,
        retrained=_retrained(team),
        qualities=qualities,
        chance=chance,
        curve=curve,
        attacked=attacked,
        notes=_notes(team, unscored),
    )


def _qualities(team: RedTeam, unscored: float) -> tuple[dict[str, Quality], float]:
    """Figures of the held-out texts by who wrote them, and the similarity of texts on different prompts.

    Args:
        team: with the texts.
        unscored: share of the texts after that the attacked detector gives no score.
    """
    request, prompts = team.request, team.parts["heldout"]
    encoder = MeaningEncoder.load(request.encoder, device=request.device)
    other = Backbone.load(resolve(request.judge), device=request.device) if request.judge else None
    found = {
        who: quality(
            prompts,
            team.texts(f"heldout-{who}"),
            team.reference,
            other,
            encoder,
            unscored=unscored if who == AFTER else 0.0,
            human=who == "human",
        )
        for who in WRITERS
    }
    return found, chance_similarity(prompts, encoder)


def _documents(team: RedTeam, name: str) -> list[Document]:
    prompts = team.parts[name.partition("-")[0]]
    return as_documents(team.request.text_set(name), prompts, team.texts(name))


def _retrained(team: RedTeam) -> pl.DataFrame | None:
    """Figures of new detectors, trained on texts before and on texts after."""
    request = team.request
    if not request.retrain:
        return None
    names = [f"{part}-{who}" for part in ("train", "heldout") for who in WRITERS]
    for name in (*names, "calibration-human"):
        team.texts(name)  # on disk from here on
    scorer = team.attacked
    extractor = (
        scorer.extractor
        if isinstance(scorer, Scorer)
        else load_extractor(team.reference, max_length=request.max_length)
    )
    files = {name: team.request.text_path(name) for name in (*names, "calibration-human")}
    found = retrained(request.retrain, files, extractor, request.cache, request.seed, team.say)
    return figures_table(found, fprs=FPRS, slices=(), resamples=request.resamples)


def _notes(team: RedTeam, unscored: Mapping[str, float]) -> list[str]:
    """What a reader of the figures must know."""
    notes = []
    for name, scorer in team.scorers.items():
        known = {entry["sha256"] for entry in _trained_on(scorer.detector.detector)}
        if seen := sorted(file for file, digest in team.data_hashes.items() if digest in known):
            notes.append(
                f"{name} was trained on {', '.join(seen)}: it knows many of these human texts as human, so its figures "
                "here flatter it, before and after alike."
            )
    notes += [
        f"{name} gives {share:.1%} of the texts after no score; they are left out of its figures."
        for name, share in unscored.items()
        if share
    ]
    return notes


def _trained_on(detector: Detector | TextDetector) -> Sequence[Mapping[str, Any]]:
    """File and SHA-256 of each file that a detector says it was trained on."""
    training: Mapping[str, Any] = {}
    if isinstance(detector, TrainableTextDetector):
        training = detector.training
    elif isinstance(detector, TrainableDetector):
        training = detector.card.training
    found: Sequence[Mapping[str, Any]] = training.get("corpora", ())
    return found


def _record(result: RedTeamResult, run: Run) -> None:
    """Figures into the run: the attacked detector's and the texts' at the top, each detector's in a child."""
    run.metrics({"auroc_fall": result.verdict.fall})
    for who, found in result.qualities.items():
        run.metrics({f"quality/{who}/{name}": value for name, value in asdict(found).items()})
    tables = [result.figures] if result.retrained is None else [result.figures, result.retrained]
    for table in tables:
        for (name,), rows in table.partition_by("detector", as_dict=True, maintain_order=True).items():
            with run.child(str(name), {"detector": name, "attacked": name == result.attacked}) as child:
                for row in rows.iter_rows(named=True):
                    child.metrics({f"{row['held_out']}/{figure}": row[figure] for figure in SHOWN})


SHOWN = ("auroc", "tpr@1%", "tpr@5%", "real_fpr@1%", "real_tpr@1%", "real_fpr@5%", "real_tpr@5%")
"""The figures of a run's record."""


def _summary(team: RedTeam, result: RedTeamResult) -> dict[str, Any]:
    """The JSON record of the run."""
    columns = ["detector", "held_out", "humans", "machines"]
    columns += [name + end for name in SHOWN for end in ("", "_low", "_high")]
    tables = {"detection": result.figures, "retrained": result.retrained}
    summary: dict[str, Any] = plain(
        {
            "method": team.request.method,
            "generator": team.request.generator,
            "attacked": result.attacked,
            "verdict": asdict(result.verdict) | {"sentence": result.verdict.sentence},
            "quality": {who: asdict(found) for who, found in result.qualities.items()},
            "chance_similarity": result.chance,
            "notes": result.notes,
            "curve": result.curve,
            **{name: table.select(columns).to_dicts() for name, table in tables.items() if table is not None},
        }
    )
    return summary
