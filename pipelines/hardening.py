"""What `pawn harden` does: a detector learns from attacked texts too, and is judged before and after."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from pathlib import Path

import numpy as np
import polars as pl

from detect.adversarial.catalog import DETECTOR, attack_entry
from detect.catalog import maker, text_names
from detect.splits import sources, split_groups
from detect.text_recipes import text_recipe
from detect.trained import Progress, silent
from features.documents import text_key
from features.errors import UsageError
from pipelines.attack_run import headline, recorded_stress
from pipelines.attack_subjects import CALIBRATION, JUDGED, Subjects, stratified
from pipelines.attacked_texts import Attacker, TextSet, text_sets
from pipelines.corpora import Corpus
from pipelines.fitting import LEARNT, SPLIT, TrainedDetector, check_output, finish
from pipelines.hardening_generators import ASKING, Generators, check_methods
from pipelines.hardening_learner import Version, Workshop, open_workshop
from pipelines.hardening_report import HELD_OUT_OUTPUTS, OUTPUTS, write_hardening_report
from pipelines.hardening_training import Trainer
from pipelines.protocols import attack_name
from pipelines.robustness import StressTest
from pipelines.robustness_figures import robustness_table
from pipelines.robustness_report import write_robustness_report
from pipelines.scorers import AnyScorer, LanguageModels
from pipelines.text_training import checkpoint_folder
from pipelines.tracked_data import record_inputs
from pipelines.tracking import UNTRACKED, Run, Tracker
from pipelines.training import TrainingRequest
from pipelines.training_data import RowsProgress, held_in

BEFORE = "before"
_TEST = ("test",)


@dataclass(frozen=True, kw_only=True)
class HardeningRequest(TrainingRequest):
    """What `pawn harden` was asked for: a training, and the attacks.

    Attributes:
        attacks: those learnt from.
        hold_out: those only judged by.
        redteam: methods of `pawn redteam` whose generators' texts are learnt from.
        hold_out_redteam: those only judged by.
        redteam_prompts: most prompts that a generator learns on, and that it is judged on.
        outputs: labelled files of attackers' outputs that are learnt from and judged by, each source on one side.
        hold_out_outputs: the same of attackers that are only judged by: their texts of sources nothing was learnt from.
        strengths: as `attacked_texts.parsed_strengths` reads them; of both.
        copies: attacked versions of each text that is learnt from, by attacks drawn at random.
        rounds: trainings; before each, attacks that query a detector and generators that ask one are made against the
            newest one.
        queried_texts: texts of each class that such an attack changes in a round.
        limit: most texts of each class that are judged; None: the whole test part.
        attacker: language model of attacks that need one; None: that of the features.
        fprs: false-positive rates of the thresholds.
        resamples: of the bootstrap.
    """

    attacks: Sequence[str] = ()
    hold_out: Sequence[str] = ()
    redteam: Sequence[str] = ()
    hold_out_redteam: Sequence[str] = ()
    redteam_prompts: int = 128
    outputs: Sequence[str] = ()
    hold_out_outputs: Sequence[str] = ()
    strengths: str = "x1"
    copies: int = 1
    rounds: int = 1
    queried_texts: int = 100
    limit: int | None = None
    attacker: str | None = None
    fprs: tuple[float, ...] = (0.01, 0.05)
    resamples: int = 1000

    @property
    def seen(self) -> list[str]:
        """Attacks and methods that are learnt from."""
        return [*self.attacks, *self.redteam]

    @property
    def held_out(self) -> list[str]:
        """Attacks and methods that are only judged by."""
        return [*self.hold_out, *self.hold_out_redteam]

    @property
    def report(self) -> Path:
        """Where everything but the detector goes: beside its folder, for it holds texts."""
        path = self.output.resolve()
        return path.with_name(f"{path.name}-report")

    def check(self) -> None:
        """Refuse what can only go wrong later, or would say nothing.

        Raises:
            UsageError: naming what is wrong.
        """
        if "-" in (*self.outputs, *self.hold_out_outputs):
            raise UsageError("outputs of attackers are read from files; standard input is for --data alone")
        known = {name: attack_entry(name) for name in (*self.attacks, *self.hold_out)}
        check_methods((*self.redteam, *self.hold_out_redteam))
        if not (self.seen or self.outputs) or not (self.held_out or self.hold_out_outputs):
            raise UsageError(
                "hardening needs --attacks, --redteam or --outputs to learn from, and --hold-out-attacks, "
                "--hold-out-redteam or --hold-out-outputs to judge by: without the latter nobody can tell robustness "
                "from memory"
            )
        if both := sorted(set(self.seen) & set(self.held_out)):
            raise UsageError(f"attack {both[0]} is to be learnt from and held out; choose one")
        asking = any(known[name].needs == DETECTOR for name in self.attacks) or set(ASKING) & set(self.redteam)
        if self.rounds > 1 and not asking:
            learnt = ", ".join(self.seen) or "--outputs"
            raise UsageError(
                f"{self.rounds} rounds, and nothing among {learnt} that asks the detector: the texts would be the same "
                "in each; add adaptive to --attacks or critic to --redteam, or leave --rounds at 1"
            )
        text_sets([*known], self.strengths, [])
        if self.detector in text_names():
            text_recipe(self.detector, seed=self.seed, **self.settings)
        else:
            maker(self.detector, seed=self.seed, **self.settings)
        check_output(self.output)


@dataclass
class Hardening:
    """A hardening under way.

    Args:
        request: what to do.
        workshop: the documents, and what learns from them.
        is_output: of each document, whether it is an attacker's output.
        is_held_out: of each document, whether it is the output of an attacker that is only judged by.
        models: the language models.
        say: told what a person should know.
        progress: told of trainings.
        run: the record.
    """

    request: HardeningRequest
    workshop: Workshop
    is_output: Sequence[bool]
    is_held_out: Sequence[bool]
    models: LanguageModels
    say: Callable[[str], None]
    progress: Progress
    run: Run
    parts: np.ndarray = field(init=False)
    sources: Sequence[int] = field(init=False)
    attacker: Attacker = field(init=False)
    generators: Generators = field(init=False)
    trainer: Trainer = field(init=False)

    def __post_init__(self) -> None:
        self.sources = sources(self.workshop.documents)
        self.parts = np.array(split_groups(self.workshop.documents, SPLIT, self.request.seed, self.sources))
        backbone = self.request.attacker or self.request.backbone
        folder = self.request.report / "attacked"
        self.attacker = Attacker(folder, lambda: self.models.backbone(backbone), backbone, self.request.seed)
        self.generators = self._generators(backbone)
        kept = self.request.report / "detectors"
        self.trainer = Trainer(self.request, kept, self.workshop, self.models, self.say, self.progress)

    def check(self) -> None:
        """Refuse, before anything slow, what generators cannot do without.

        Raises:
            PawnError: when there are too few texts for prompts, or no language model to tune.
        """
        if self.request.redteam or self.request.hold_out_redteam:
            self.generators.prompts  # noqa: B018  # it is made now, and kept

    def train(self, name: str, versions: Sequence[Version], run: Run) -> tuple[TrainedDetector, AnyScorer]:
        """A detector trained on the documents and some versions, and what scores by it; see `Trainer.train`."""
        learner = self.workshop.learner(self.request.called, versions)
        not_shown = self.is_output if name == BEFORE else self.is_held_out
        learner = replace(learner, not_shown=frozenset(np.flatnonzero(not_shown).tolist()))
        record = {
            "attacks": self.request.seen if versions else [],
            "held_out": self.request.held_out,
            "strengths": self.request.strengths,
            "attacked_texts": len(learner.origins),
            "round": name,
        }
        return self.trainer.train(name, learner, record, run)

    def static_versions(self) -> list[Version]:
        """Attacked versions of clean training and validation texts by attacks that need no detector."""
        sets = [found for found in text_sets(self.request.attacks, self.request.strengths, []) if not found.target]
        chosen = self._attackable()
        if not sets or not chosen:
            return []
        rng = np.random.default_rng(self.request.seed)
        drawn = [(int(draw), index) for index in chosen for draw in rng.permutation(len(sets))[: self.request.copies]]
        found = []
        for number, members in groupby(sorted(drawn), key=lambda pair: pair[0]):
            found += self._versions([index for _, index in members], sets[number], None)
        return found

    def queried_versions(self, newest: AnyScorer, name: str) -> list[Version]:
        """Attacked versions of some clean training texts, made against a detector."""
        found: list[Version] = []
        chosen: list[int] = []
        for label in (0, 1):
            members = [index for index in self._attackable() if self.workshop.documents[index].label == label]
            documents = [self.workshop.documents[index] for index in members]
            corpora = [""] * len(members)
            chosen += stratified(documents, corpora, members, self.request.queried_texts, self.request.seed)
        for text_set in text_sets(self.request.attacks, self.request.strengths, [name]):
            if text_set.target is not None:
                found += self._versions(chosen, text_set, newest)
        return found

    def generated_versions(self, newest: AnyScorer, name: str) -> list[Version]:
        """What generators tuned against a detector write on the beginnings of training texts, and their real ends."""
        tuned = [self.generators.tune(method, name, newest, self.run) for method in self.request.redteam]
        return [version for own in tuned for version in self.generators.versions(own)]

    def _attackable(self) -> list[int]:
        """Clean documents of the parts that are learnt from."""
        return self._clean(LEARNT)

    def _clean(self, parts: Sequence[str]) -> list[int]:
        """Clean documents of some parts, no attacker's outputs."""
        return [
            index
            for index, document in enumerate(self.workshop.documents)
            if self.parts[index] in parts and not self.is_output[index] and attack_name(document) == "none"
        ]

    def _generators(self, name: str) -> Generators:
        documents = self.workshop.documents
        learnt, judged = (
            [index for index in self._clean(parts) if documents[index].label == 0] for parts in (LEARNT, _TEST)
        )
        return Generators(
            documents=documents,
            learnt=learnt,
            judged=judged,
            sources=self.sources,
            most=self.request.redteam_prompts,
            name=name,
            folder=self.request.report / "redteam",
            models=self.models,
            seed=self.request.seed,
            say=self.say,
        )

    def _versions(self, members: Sequence[int], text_set: TextSet, target: AnyScorer | None) -> list[Version]:
        self.say(f"Attacking {len(members):,} texts to learn from: {text_set.shown}")
        documents = [self.workshop.documents[index] for index in members]
        texts = self.attacker.attacked(documents, text_set, target)["text"]
        return [
            Version(replace(document, text=text, attack=text_set.attack), index)
            for document, text, index in zip(documents, texts, members, strict=True)
        ]

    def subjects(self) -> tuple[Subjects, dict[str, Subjects]]:
        """Clean documents of the test part with human ones that fix thresholds, and outputs by their group's name."""
        names = {"test": JUDGED, "calibration": CALIBRATION}
        documents = [replace(document, id=text_key(document.text)) for document in self.workshop.documents]
        fields = (
            documents,
            [str(document.domain) for document in documents],
            self.sources,
            [names.get(part, "") for part in self.parts],
        )
        everything = Subjects(*fields)
        chosen = []
        for part, label, limit in (
            (_TEST, 0, self.request.limit),
            (_TEST, 1, self.request.limit),
            (("calibration",), 0, None),
        ):
            members = [index for index in self._clean(part) if documents[index].label == label]
            own = everything.subset(members)
            chosen += stratified(own.documents, own.corpora, members, limit, self.request.seed)
        outputs = [index for index in everything.of(JUDGED) if self.is_output[index]]
        groups = {
            OUTPUTS: [index for index in outputs if not self.is_held_out[index]],
            HELD_OUT_OUTPUTS: [index for index in outputs if self.is_held_out[index]],
        }
        return everything.subset(sorted(chosen)), {name: everything.subset(own) for name, own in groups.items() if own}


def run_hardening(
    request: HardeningRequest,
    *,
    say: Callable[[str], None],
    rows_line: RowsProgress = lambda rows, total, tokens: None,
    progress: Progress = silent,
    tracker: Tracker = UNTRACKED,
) -> int:
    """Train, attack, train again, judge all of it, save, and record it as a run; returns how many rows were no use.

    Args:
        request: what to do.
        say: told what a person should know.
        rows_line: told of extraction.
        progress: told of training.
        tracker: makes the run, which gets the detector once it is saved.

    Raises:
        PawnError: for everything that can be wrong with data, attacks, recipe or output.
    """
    request.check()
    models = LanguageModels(request.device, say)
    outputs = [*request.outputs, *request.hold_out_outputs]
    with Corpus.open([*request.inputs, *outputs], request.corpus_options) as corpus:
        workshop = open_workshop(request, corpus, models, say, rows_line)
        say(f"{len(workshop.documents):,} texts, each once, with one label; {workshop.failed:,} rows cannot be used")
        settings = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(request).items()}
        with tracker.run("harden", request.called, settings | {"backbone_record": workshop.facts.backbone}) as run:
            record_inputs(run, [*request.inputs, *outputs], "training", request.input_format)
            are_outputs, are_held_out = (
                held_in(workshop.documents, files, request.corpus_options).tolist()
                for files in (outputs, request.hold_out_outputs)
            )
            hardening = Hardening(request, workshop, are_outputs, are_held_out, models, say, progress, run)
            hardening.check()
            trained, scorers = _rounds(hardening)
            _judge(hardening, scorers)
            finish(trained, request, run, say)
            shutil.rmtree(checkpoint_folder(request.output), ignore_errors=True)  # only now: the detector is whole
    return workshop.failed


def _rounds(hardening: Hardening) -> tuple[TrainedDetector, dict[str, AnyScorer]]:
    """The hardened detector of the last round, and what scores by each, the one before among them."""
    with hardening.run.child(BEFORE, {"round": 0}) as child:
        trained, newest = hardening.train(BEFORE, [], child)
    scorers = {BEFORE: newest}
    versions = hardening.static_versions()
    for number in range(1, hardening.request.rounds + 1):
        name = "after" if number == hardening.request.rounds else f"round {number}"
        asked = [*scorers][-1]
        versions = versions + hardening.queried_versions(newest, asked) + hardening.generated_versions(newest, asked)
        with hardening.run.child(name, {"round": number}) as child:
            trained, newest = hardening.train(name, versions, child)
        scorers[name] = newest
    return trained, scorers


def _judge(hardening: Hardening, scorers: Mapping[str, AnyScorer]) -> None:
    """Attack the test part, score it by every detector, and write both reports."""
    request, run = hardening.request, hardening.run
    subjects, outputs = hardening.subjects()
    subjects.check()
    stress = StressTest(subjects, scorers, hardening.attacker, request.report, hardening.say)
    asked = text_sets([*request.attacks, *request.hold_out], request.strengths, list(scorers))
    scored, samples = recorded_stress(stress, asked, run, request.fprs)
    generated = _generated(hardening, stress)
    scored = pl.concat([scored, *(stress.foreign(own, name) for name, own in outputs.items()), *generated])
    table = robustness_table(scored, fprs=request.fprs, resamples=request.resamples)
    heading = f"Hardening: {request.called}"
    written = write_robustness_report(stress.detectors, scored, table, samples, request.report, heading, request.fprs)
    quality = hardening.generators.quality() if generated else None
    written += write_hardening_report(
        table, request.seen, request.held_out, request.report, heading, request.fprs, quality=quality
    )
    run.metrics(headline(table, request.fprs))
    for path in written:
        run.file(path, "plots" if path.parent.name == "plots" else "")


def _generated(hardening: Hardening, stress: StressTest) -> list[pl.DataFrame]:
    """Every detector's scores of what every generator writes on beginnings of the test part's human texts."""
    found = {}
    for method in (*hardening.request.redteam, *hardening.request.hold_out_redteam):
        for name, scorer in stress.scorers.items():
            tuned = hardening.generators.tune(method, name, scorer, hardening.run)
            if tuned.shown not in found:
                target = name if method in ASKING else None
                scored = stress.foreign(hardening.generators.subjects(tuned), method)
                found[tuned.shown] = scored.with_columns(target=pl.lit(target, pl.String))
    return list(found.values())
