"""A generator fine-tuned against a detector, and what that did: to every detector, and to the text."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from detect.adversarial.critic import CriticConfig, train_critic
from detect.adversarial.generation import Continuation, SamplingSettings, sample
from detect.adversarial.policy import GENERATOR_LORA, Policy
from detect.adversarial.preference import PreferenceConfig, check_trl, human_pairs, ranked_pairs, train_dpo
from detect.adversarial.prompts import Prompt, cut_prompts, share_out
from detect.adversarial.quality import DEFAULT_ENCODER, perplexity, repetition
from detect.catalog import DEFAULT_BACKBONE, DEFAULT_DETECTOR, trainable_names
from features.backbone import Backbone
from features.errors import InputError, UsageError
from features.extractor import DEFAULT_MAX_LENGTH
from features.registry import BackboneFiles, resolve
from pipelines.attacked_texts import queried
from pipelines.corpora import Corpus, CorpusOptions
from pipelines.parts import disk_errors, publish_json
from pipelines.provenance import plain
from pipelines.redteam_texts import TextSet, human_texts, read_texts, write_texts
from pipelines.scorers import AnyScorer, load_scorers
from pipelines.scoring import ScoringSettings
from pipelines.tracking import Run

METHODS = {
    "critic": "language-model loss on human texts, and on own texts reinforced by the detector's verdict (2304.08968)",
    "dpo": "preference for own texts that the detector finds most human over the others (Nicks et al., ICLR 2024)",
    "dpo-human": "preference for human over own text, without a detector (2505.24523)",
}
RETRAINED = ("lightgbm", "logistic")
TRANSFER = ("log-likelihood", "fast-detect-gpt")
PROBED = 32
"""Training prompts on which DPO's generator is looked at after each epoch."""

RUN_FILE, CURVE_FILE, ADAPTER = "run.json", "curve.json", "adapter"
DRAWINGS = {"train-before": 1, "train-after": 1, "heldout-before": 3, "heldout-after": 3}
"""Numbers of the drawings of a run: texts before and after are drawn alike. Further ones are numbered from 4 on."""


@dataclass(frozen=True, kw_only=True)
class RedTeamRequest:
    """What `pawn redteam` was asked for.

    Attributes:
        method: one of `METHODS`.
        inputs: labelled files; their human texts give the prompts.
        output: folder for adapters, texts, record and report.
        detector: that is attacked.
        also: detectors that are not, for transfer.
        generator: causal language model that is fine-tuned.
        judge: another language model for perplexity, if there is one.
        backbone: language model of the detectors; None: each detector's own.
        encoder: of meaning.
        prompts: to train on.
        held_out: to compare on.
        calibration: human texts that fix thresholds.
        prompt_tokens: most tokens of a prompt.
        sampling: how texts are drawn.
        critic: recipe of that method.
        preference: recipe of the two others.
        rank: of the adapters.
        retrain: detectors of `pawn train` that are trained anew on texts before and after.
        columns: how to read the files.
        cache: folder of the feature cache.
        max_length: tokens of a text that detectors read.
        device: "cpu" or "cuda"; None: cuda when there is one.
        resamples: of the bootstrap.
        seed: of everything random.

    Raises:
        UsageError: when something of it cannot be.
    """

    method: str
    inputs: Sequence[str]
    output: Path
    detector: str = DEFAULT_DETECTOR
    also: Sequence[str] = TRANSFER
    generator: str = DEFAULT_BACKBONE
    judge: str | None = None
    backbone: str | None = None
    encoder: str = DEFAULT_ENCODER
    prompts: int = 128
    held_out: int = 128
    calibration: int = 200
    prompt_tokens: int = 16
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    critic: CriticConfig = field(default_factory=CriticConfig)
    preference: PreferenceConfig = field(default_factory=PreferenceConfig)
    rank: int = GENERATOR_LORA.rank
    retrain: Sequence[str] = RETRAINED
    columns: CorpusOptions = field(default_factory=lambda: CorpusOptions(labelled=True))
    cache: Path
    max_length: int = DEFAULT_MAX_LENGTH
    device: str | None = None
    resamples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(f"no method {self.method!r}; expected one of {', '.join(METHODS)}")
        if unknown := [name for name in self.retrain if name not in trainable_names()]:
            raise UsageError(
                f"no detector {unknown[0]!r} can be trained; expected one of {', '.join(trainable_names())}"
            )
        if self.method != "critic":
            check_trl()

    def text_set(self, name: str) -> TextSet:
        """Who wrote the set of texts of a name, `PART-WRITER`."""
        who = name.partition("-")[2]
        if who == "human":
            return TextSet(name, "human")
        attack = f"redteam-{self.method}" if who == "after" else "none"
        return TextSet(name, Path(self.generator).name, attack)

    def text_path(self, name: str) -> Path:
        """Where the set of that name is written."""
        return self.output / "texts" / f"{name}.parquet"


Say = Callable[[str], None]
Steps = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done and how much there is."""


@dataclass
class RedTeam:
    """One fine-tuning with what it needs; every stage that is finished is on disk and not done again.

    Attributes:
        request: what was asked for.
        reference: the generator before it was tuned.
        policy: the generator that is tuned.
        scorers: by name, the attacked detector first.
        parts: prompts by part: train, heldout, calibration.
        data_hashes: SHA-256 of each file of texts by its name.
        say: told what a person should know.
        steps: told of progress.
    """

    request: RedTeamRequest
    reference: Backbone
    policy: Policy
    scorers: Mapping[str, AnyScorer]
    parts: Mapping[str, list[Prompt]]
    data_hashes: Mapping[str, str]
    say: Say
    steps: Steps

    @property
    def attacked(self) -> AnyScorer:
        """The detector that is attacked."""
        return next(iter(self.scorers.values()))

    def texts(self, name: str) -> list[Continuation]:
        """A set of texts by name, `PART-WRITER`: written now unless it is there."""
        prompts = self.parts[name.partition("-")[0]]
        if self.request.text_path(name).is_file():
            return read_texts(self.request.text_path(name), prompts)
        kind = self.request.text_set(name)
        if kind.generator == "human":
            found = human_texts(prompts)
        else:
            found = sample(
                self.policy.snapshot(),
                self.policy.tokenizer,
                prompts,
                self.request.sampling,
                drawing_seed(name, self.request.seed),
                lambda done, total: self.steps(f"texts written ({name})", done, total),
            )
        write_texts(self.request.text_path(name), kind, prompts, found)
        return found

    def score(self, texts: Sequence[str]) -> np.ndarray:
        """The attacked detector's scores, without leaving features of passing texts in the cache."""
        return queried(self.attacked)(texts)

    def check(self) -> None:
        """Refuse a detector that has no score for texts of this length, before anything slow is done.

        Raises:
            InputError: saying what to ask for.
        """
        scores = self.score([prompt.human for prompt in self.parts["calibration"]][:PROBED])
        if not np.isfinite(scores).all():
            missing = int((~np.isfinite(scores)).sum())
            raise InputError(
                f"detector {self.request.detector} gives {missing} of {len(scores)} human texts of "
                f"{self.request.sampling.new_tokens} tokens no score; ask for longer ones with --new-tokens"
            )

    def measure(self, prompts: Sequence[Prompt], texts: Sequence[Continuation]) -> dict[str, float]:
        """What is noted of texts on the way."""
        return {
            "perplexity": perplexity(self.reference, [t.whole for t in texts], [p.text for p in prompts]),
            "repetition": repetition([text.text for text in texts]),
        }

    def train(self, run: Run) -> list[dict[str, float]]:
        """Tune the generator, or take up the adapters that are there; the points of its curve."""
        adapter, curve_file = self.request.output / ADAPTER, self.request.output / CURVE_FILE
        if adapter.is_dir() and curve_file.is_file():
            self.say(f"The adapters are there already: {adapter}")
            self.policy.restore(adapter)
            curve: list[dict[str, float]] = json.loads(curve_file.read_text())["points"]
            return curve

        def on_point(point: Mapping[str, float]) -> None:
            run.metrics({name: value for name, value in point.items() if name != "step"}, step=int(point["step"]))
            self.say(", ".join(f"{name} {value:.4g}" for name, value in point.items()))

        curve = self._critic(on_point) if self.request.method == "critic" else self._preference(on_point)
        with disk_errors(adapter, "then repeat the command: texts that were written are kept"):
            self.policy.save(adapter)
            publish_json(curve_file, {"method": self.request.method, "points": plain(curve)})
        return curve

    def _critic(self, on_point: Callable[[Mapping[str, float]], None]) -> list[dict[str, float]]:
        config = replace(self.request.critic, seed=self.request.seed)
        return train_critic(
            self.policy,
            self.parts["train"],
            self.score,
            self.request.sampling,
            config,
            measure=self.measure,
            on_point=on_point,
        )

    def _preference(self, on_point: Callable[[Mapping[str, float]], None]) -> list[dict[str, float]]:
        prompts = self.parts["train"]
        own = self.texts("train-before")
        if self.request.method == "dpo":
            drawn = [own, *map(self.texts, more_drawings(self.request.preference.drawings))]
            pairs = ranked_pairs(prompts, drawn, [self.score([text.text for text in texts]) for texts in drawn])
        else:
            pairs = human_pairs(prompts, own)
        self.say(f"{len(pairs)} pairs to learn from")
        probes: list[dict[str, float]] = []

        def probe(point: Mapping[str, float]) -> None:
            probed = prompts[:PROBED]
            texts = sample(
                self.policy.snapshot(), self.policy.tokenizer, probed, self.request.sampling, self.request.seed
            )
            scores = self.score([text.text for text in texts])
            found = {"score": float(np.nanmean(scores)) if np.isfinite(scores).any() else float("nan")}
            probes.append(dict(point) | found | self.measure(probed, texts))
            on_point(probes[-1])

        config = replace(self.request.preference, seed=self.request.seed)
        steps = train_dpo(self.policy, pairs, config, probe=probe, on_point=on_point)
        return [*probes, *steps]


def more_drawings(drawings: int) -> list[str]:
    """Names of the sets of texts beside "train-before" that `dpo` ranks, so many with it."""
    return [f"train-drawing{number}" for number in range(2, drawings + 1)]


def drawing_seed(name: str, seed: int) -> int:
    """The seed of a drawing of a run of this seed, by the name of the set of texts; no other run's drawing has it."""
    number = DRAWINGS.get(name) or 2 + int(name.removeprefix("train-drawing"))
    return int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0])


def prepare(request: RedTeamRequest, say: Say, steps: Steps) -> RedTeam:
    """Find, load and check everything, before anything slow is done.

    Raises:
        PawnError: for everything that can be wrong with data, detectors, models or the output folder.
    """
    names = list(dict.fromkeys((request.detector, *request.also)))
    scorers = load_scorers(names, _settings(request), say)
    files = resolve(request.generator, progress=say)
    reference = Backbone.load(files, device=request.device)
    with Corpus.open(request.inputs, request.columns) as corpus:
        documents = [row.document for row in corpus.rows() if row.document.text]
        hashes = corpus.sha256()
    found = cut_prompts(
        documents, reference, prompt_tokens=request.prompt_tokens, new_tokens=request.sampling.new_tokens
    )
    counts = {"train": request.prompts, "heldout": request.held_out, "calibration": request.calibration}
    parts = share_out(found, counts, request.seed)
    _claim(request, files, next(iter(scorers.values())), hashes)
    shape = replace(GENERATOR_LORA, rank=request.rank, alpha=2 * request.rank)
    policy = Policy.load(files, shape, seed=request.seed, device=request.device)
    return RedTeam(request, reference, policy, scorers, parts, hashes, say, steps)


def _settings(request: RedTeamRequest) -> ScoringSettings:
    return ScoringSettings(
        backbone=request.backbone, max_length=request.max_length, cache=request.cache, device=request.device
    )


def _claim(request: RedTeamRequest, files: BackboneFiles, attacked: AnyScorer, hashes: Mapping[str, str]) -> None:
    """Write what this run is into its folder, or refuse a folder of another run.

    Raises:
        UsageError: when the folder holds something else.
    """
    asked = {name: value for name, value in asdict(request).items() if name not in NOT_IDENTITY}
    identity = plain(
        asked | {"data": hashes, "generator_weights": files.weights_id, "attacked": attacked.detector.identity}
    )
    path = request.output / RUN_FILE
    if path.is_file():
        if json.loads(path.read_text()).get("identity") != identity:
            raise UsageError(f"{request.output} holds a run with other settings or data; choose another folder with -o")
        return
    if request.output.is_dir() and any(request.output.iterdir()):
        raise UsageError(f"{request.output} holds something else than a run of pawn redteam; choose another folder")
    with disk_errors(request.output, "then repeat the command"):
        request.output.mkdir(parents=True, exist_ok=True)
        publish_json(path, {"identity": identity})


NOT_IDENTITY = {"output", "cache", "device", "inputs", "also", "judge", "encoder", "retrain", "resamples"}
"""What may change when a run is continued: none of it changes the generator or its texts."""
