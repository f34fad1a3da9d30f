"""What `pawn attack` does: a stress test of detectors that are ready, its report, and its record."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl

from detect.adversarial.catalog import ENTRIES, attack_entry
from detect.catalog import DEFAULT_BACKBONE
from features.documents import Document
from pipelines.attack_samples import originals, sample_section
from pipelines.attack_subjects import JUDGED, Subjects, read_clean
from pipelines.attacked_texts import Attacker, TextSet, text_sets
from pipelines.corpora import CorpusOptions
from pipelines.figures import rate_name
from pipelines.fitting import check_output
from pipelines.robustness import StressTest
from pipelines.robustness_figures import CLEAN, robustness_table
from pipelines.robustness_report import write_robustness_report
from pipelines.scorers import LanguageModels, load_scorers
from pipelines.scoring import ScoringSettings
from pipelines.tracked_data import record_inputs
from pipelines.tracking import UNTRACKED, Run, Tracker

LABELLED = CorpusOptions(labelled=True)
ALL = "all"


@dataclass(frozen=True, kw_only=True)
class AttackRequest:
    """What `pawn attack` was asked for.

    Attributes:
        detectors: names of `pawn detectors` that need no training, folders, or `module:Class`.
        inputs: labelled files; machine texts that something was done to already are left out.
        output: folder for texts, scores, tables and pictures.
        attacks: names of the catalog, or "all" alone.
        strengths: as `attacked_texts.parsed_strengths` reads them.
        calibrate_on: labelled files whose human texts fix thresholds; empty: half of the sources of `inputs`.
        columns: how to read the files.
        limit: most documents of each class that are attacked; None: all.
        calibration_texts: most human documents that fix thresholds.
        seed: of the choice of documents and of every attack.
        attacker: language model of attacks that need one.
        backbone: language model; None: each detector's own.
        cache: folder of a feature cache.
        max_length: tokens of a text that are read.
        device: "cpu" or "cuda"; None: cuda when there is one.
        observer: second language model, for detectors that compare two.
        fprs: false-positive rates of the thresholds.
        resamples: of the bootstrap.
    """

    detectors: Sequence[str]
    inputs: Sequence[str]
    output: Path
    attacks: Sequence[str] = (ALL,)
    strengths: str = "x1"
    calibrate_on: Sequence[str] = ()
    columns: CorpusOptions = LABELLED
    limit: int | None = None
    calibration_texts: int = 500
    seed: int = 0
    attacker: str | None = None
    backbone: str | None = None
    cache: Path | None = None
    max_length: int = 512
    device: str | None = None
    observer: str | None = None
    fprs: tuple[float, ...] = (0.01, 0.05)
    resamples: int = 1000

    @property
    def scoring(self) -> ScoringSettings:
        """How to use the detectors: on texts as they are, since the defence is a column of its own."""
        names = ("backbone", "max_length", "cache", "device", "observer")
        return ScoringSettings(**{name: getattr(self, name) for name in names}, normalise=False)


@dataclass(frozen=True)
class Robustness:
    """What a stress test gave: rows of `SCORED_SCHEMA`, the `robustness_table` of them, and rows not used by reason."""

    scored: pl.DataFrame
    figures: pl.DataFrame
    left_out: Mapping[str, int]

    @property
    def unscored(self) -> int:
        """Texts of the files, and attacked texts, that no detector could score."""
        unused = sum(count for reason, count in self.left_out.items() if reason not in _NO_FAILURE)
        return unused + int(self.figures.filter(defence="none")["unscored"].sum())


_NO_FAILURE = ("repeated", "with both labels", "attacked already")


def attack_names(given: Sequence[str]) -> list[str]:
    """The names asked for, each once; "all" stands for every one.

    Raises:
        UsageError: for an unknown name.
    """
    names = dict.fromkeys(
        name for word in given for name in ([entry.name for entry in ENTRIES] if word == ALL else [word])
    )
    return [attack_entry(name).name for name in names]


def run_attack(request: AttackRequest, *, say: Callable[[str], None], tracker: Tracker = UNTRACKED) -> Robustness:
    """Attack, score, write the report, record the run and each attack of it; what was done before is kept.

    Raises:
        PawnError: for everything that can be wrong with detectors, attacks, files or the disk.
    """
    attacks = attack_names(request.attacks)
    text_sets(attacks, request.strengths, [])  # refused before anything slow
    check_output(request.output)
    models = LanguageModels(request.device, say)
    scorers = load_scorers(request.detectors, request.scoring, say, models)
    asked = text_sets(attacks, request.strengths, list(scorers))
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(request).items()}
    settings |= {"attacks": attacks, "detectors": {name: scorer.describe() for name, scorer in scorers.items()}}
    with tracker.run("attack", request.output.name, settings) as run:
        record_inputs(run, request.inputs, "attack", request.columns.input_format)
        record_inputs(run, request.calibrate_on, "calibration", request.columns.input_format)
        subjects, left_out = _subjects(request, say)
        backbone = request.attacker or request.backbone or DEFAULT_BACKBONE
        attacker = Attacker(request.output / "attacked", lambda: models.backbone(backbone), backbone, request.seed)
        stress = StressTest(subjects, scorers, attacker, request.output, say)
        scored, samples = recorded_stress(stress, asked, run, request.fprs)
        table = robustness_table(scored, fprs=request.fprs, resamples=request.resamples)
        heading = f"Robustness: {', '.join(Path(name).stem for name in request.inputs)}"
        written = write_robustness_report(
            stress.detectors, scored, table, samples, request.output, heading, request.fprs
        )
        run.metrics(headline(table, request.fprs))
        for path in written:
            run.file(path, "plots" if path.parent.name == "plots" else "")
    return Robustness(scored, table, {**left_out, "without a score": stress.left_out})


def _subjects(request: AttackRequest, say: Callable[[str], None]) -> tuple[Subjects, Mapping[str, int]]:
    """The documents, and what was left out of the files by reason."""
    judged, left_out = read_clean(request.inputs, request.columns)
    calibration: dict[str, tuple[Document, str]] = {}
    if request.calibrate_on:
        calibration, more = read_clean(request.calibrate_on, request.columns)
        left_out += more
    for reason, count in left_out.items():
        say(f"{count:,} rows are left out: {reason}")
    subjects = Subjects.chosen(
        judged,
        calibration,
        limit=request.limit,
        calibration_texts=request.calibration_texts,
        seed=request.seed,
    )
    subjects.check()
    counts = [
        sum(document.label == label for document in subjects.subset(subjects.of(JUDGED)).documents) for label in (0, 1)
    ]
    fixing = len(subjects.documents) - sum(counts)
    say(
        f"{counts[0]:,} human and {counts[1]:,} machine texts to attack; {fixing:,} other human ones fix the thresholds"
    )
    return subjects, left_out


def recorded_stress(
    stress: StressTest, asked: Sequence[TextSet], run: Run, fprs: Sequence[float], before: str = ""
) -> tuple[pl.DataFrame, str]:
    """Run a stress test with a child run for each set of texts; all scores, and samples to read as Markdown.

    Args:
        stress: with its subjects.
        asked: the attacks.
        run: the parent.
        fprs: rates of the figures that the child runs get.
        before: the beginning of the children's names.
    """
    clean = stress.clean()
    judged = stress.subjects.subset(stress.subjects.of(JUDGED)).documents
    samples = [originals(judged)]

    def finished(text_set: TextSet, texts: pl.DataFrame, scored: pl.DataFrame) -> None:
        both = pl.concat([clean, scored])
        samples.append(sample_section(text_set, judged, texts, both))
        with run.child(before + text_set.shown, asdict(text_set)) as child:
            table = robustness_table(both, fprs=fprs, resamples=0).filter(pl.col("attack") != CLEAN)
            child.metrics(_named_figures(table, fprs))

    return stress.run(asked, finished), "\n\n".join(samples) + "\n"


def _named_figures(table: pl.DataFrame, fprs: Sequence[float]) -> dict[str, float | None]:
    """Figures of one set of texts by name: "pawn/auroc", and "pawn/normalised/auroc"."""
    kinds = [f"{kind}@{rate_name(fpr)}" for fpr in fprs for kind in ("real_tpr", "real_fpr", "success")]
    found: dict[str, float | None] = {}
    for row in table.iter_rows(named=True):
        place = "/".join([row["detector"].replace("/", "-"), *(["normalised"] if row["defence"] != "none" else [])])
        found |= {
            f"{place}/{name}": row[name]
            for name in ("auroc", "auroc_attacked_human", *kinds, "edit_distance", "queries")
        }
    return found


def headline(table: pl.DataFrame, fprs: Sequence[float]) -> dict[str, float | None]:
    """The clean figures and the worst of any attack, by name: "pawn/clean/auroc", "pawn/worst/auroc"."""
    found: dict[str, float | None] = {}
    rates = [rate_name(fpr) for fpr in fprs]
    for (detector,), own in table.filter(defence="none").partition_by("detector", as_dict=True).items():
        clean, attacked = own.filter(attack=CLEAN), own.filter(pl.col("attack") != CLEAN)
        for name in ("auroc", *(f"{kind}@{rate}" for rate in rates for kind in ("real_tpr", "real_fpr"))):
            worst = attacked[name].max() if name.startswith("real_fpr") else attacked[name].min()
            place = str(detector).replace("/", "-")
            found |= {f"{place}/clean/{name}": clean[name].item(), f"{place}/worst/{name}": worst}  # type: ignore[dict-item]  # "PythonLiteral"
    return found
