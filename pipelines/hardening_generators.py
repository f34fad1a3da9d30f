"""Generators tuned against the detectors of a hardening: what they write is learnt from, and judged by."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np
import polars as pl

from detect.adversarial.generation import Continuation
from detect.adversarial.policy import GENERATOR_LORA, Policy
from detect.adversarial.prompts import Prompt, cut_prompts
from detect.adversarial.quality import perplexity, repetition
from features.documents import Document
from features.errors import InputError
from features.registry import resolve
from pipelines.attack_subjects import JUDGED, Subjects
from pipelines.cells import cell_name, digest_of
from pipelines.hardening_learner import Version
from pipelines.provenance import plain
from pipelines.redteam import NOT_IDENTITY, RedTeam, RedTeamRequest
from pipelines.redteam_texts import as_documents, read_texts
from pipelines.scorers import AnyScorer, LanguageModels, what_scores
from pipelines.tracking import Run

ASKING = ("critic", "dpo")
"""The methods of `pawn redteam` that ask a detector: their generators are tuned anew against each."""

FEWEST_PROMPTS = 8
"""Fewer teach a generator nothing and judge a detector by chance."""

_PARTS = {"train": "to learn on", "heldout": "in the test part"}
_WRITERS = ("human", "after")


@dataclass(frozen=True)
class Tuned:
    """What a tuned generator wrote on the prompts of both parts, in their order.

    Attributes:
        shown: for people: "critic against before".
        method: of `pawn redteam`.
        texts: by name, `PART-WRITER`.
        documents: the same as labelled documents; the human ones are how the writers of the prompts went on.
    """

    shown: str
    method: str
    texts: dict[str, list[Continuation]]
    documents: dict[str, list[Document]]


@dataclass
class Generators:
    """Tunes generators as `pawn redteam` does, on prompts of a hardening's own parts; what they write is kept.

    Args:
        documents: those of the hardening.
        learnt: numbers of the human ones whose beginnings a generator learns on.
        judged: the same of those that detectors are judged on.
        sources: of each document as a number, as `detect.splits.sources` gives it.
        most: prompts of each of the two parts at most.
        name: of the language model that is tuned.
        folder: of the kept generators.
        models: the language models.
        seed: of everything random.
        say: told what a person should know.
    """

    documents: Sequence[Document]
    learnt: Sequence[int]
    judged: Sequence[int]
    sources: Sequence[int]
    most: int
    name: str
    folder: Path
    models: LanguageModels
    seed: int
    say: Callable[[str], None]
    tuned: dict[str, Tuned] = field(default_factory=dict, init=False)

    @cached_property
    def prompts(self) -> dict[str, list[Prompt]]:
        """Prompts by part, "train" and "heldout"; the id of a prompt's document is its number.

        Raises:
            InputError: when a part has too few human texts that are long enough.
        """
        usual = self._request("critic", self.folder, "")
        new_tokens = usual.sampling.new_tokens
        found = {}
        for part, members in (("train", self.learnt), ("heldout", self.judged)):
            numbered = [replace(self.documents[index], id=str(index)) for index in members]
            backbone = self.models.backbone(self.name)
            own = cut_prompts(numbered, backbone, prompt_tokens=usual.prompt_tokens, new_tokens=new_tokens)
            if len(own) < FEWEST_PROMPTS:
                raise InputError(
                    f"a generator needs at least {FEWEST_PROMPTS} human texts of {usual.prompt_tokens + new_tokens} "
                    f"tokens {_PARTS[part]}, found {len(own)}; give more or longer ones, or leave out --redteam and "
                    "--hold-out-redteam"
                )
            drawn = np.random.default_rng(self.seed).permutation(len(own))[: self.most]
            found[part] = [own[index] for index in sorted(drawn.tolist())]
        return found

    def tune(self, method: str, name: str, target: AnyScorer, run: Run) -> Tuned:
        """What a generator writes once it is tuned, which is done now unless its texts are kept.

        Args:
            method: one of `pipelines.redteam.METHODS`.
            name: of the detector, for people; of no matter to a method that asks none.
            target: the detector.
            run: gets the tuning and its curve as a child.

        Raises:
            PawnError: as the tuning does.
        """
        asked = method in ASKING
        shown = f"{method} against {name}" if asked else method
        if shown not in self.tuned:
            recipe = asdict(self._request(method, self.folder, ""))
            identity = {
                "recipe": plain({name: value for name, value in recipe.items() if name not in NOT_IDENTITY}),
                "target": what_scores(target) if asked else None,
                "generator": resolve(self.name, progress=self.say).weights_id,
                "prompts": [digest_of([p.text + p.human for p in self.prompts[part]], 64) for part in _PARTS],
                "version": version("pawn-detect"),
            }
            request = self._request(method, self.folder / cell_name(shown, self.seed, identity), name)
            with run.child(shown, {"method": method, "target": name if asked else None}) as child:
                texts = self._texts(request, shown, target, child)
            documents = {
                key: as_documents(request.text_set(key), self._prompts_of(key), own) for key, own in texts.items()
            }
            self.tuned[shown] = Tuned(shown, method, texts, documents)
        return self.tuned[shown]

    def versions(self, tuned: Tuned) -> list[Version]:
        """Its texts on the prompts that it learnt on, and the human ones of the same length beside them."""
        return [
            Version(document, int(prompt.document.id))
            for who in _WRITERS
            for document, prompt in zip(tuned.documents[f"train-{who}"], self.prompts["train"], strict=True)
        ]

    def subjects(self, tuned: Tuned) -> Subjects:
        """The same on the prompts of the part that is judged."""
        documents = [
            replace(document, id=f"{tuned.shown}: {document.id}")
            for who in _WRITERS
            for document in tuned.documents[f"heldout-{who}"]
        ]
        origins = [int(prompt.document.id) for _ in _WRITERS for prompt in self.prompts["heldout"]]
        return Subjects(
            documents,
            [str(document.domain) for document in documents],
            [self.sources[index] for index in origins],
            [JUDGED] * len(documents),
        )

    def quality(self) -> pl.DataFrame:
        """What became of the text of every generator: `texts`, `perplexity` (under the untuned one), `repetition`.

        The texts are those that are judged; the first row is of the human ones.
        """
        found: dict[str, list[Continuation]] = {}
        for tuned in self.tuned.values():
            found.setdefault("human", tuned.texts["heldout-human"])
            found[tuned.shown] = tuned.texts["heldout-after"]
        beginnings = [prompt.text for prompt in self.prompts["heldout"]]
        backbone = self.models.backbone(self.name)
        return pl.DataFrame(
            {
                "texts": list(found),
                "perplexity": [perplexity(backbone, [t.whole for t in texts], beginnings) for texts in found.values()],
                "repetition": [repetition([text.text for text in texts]) for texts in found.values()],
            }
        )

    def _request(self, method: str, folder: Path, target: str) -> RedTeamRequest:
        return RedTeamRequest(
            method=method,
            inputs=(),
            output=folder,
            cache=self.folder,
            generator=self.name,
            detector=target,
            device=self.models.device,
            seed=self.seed,
        )

    def _texts(self, request: RedTeamRequest, shown: str, target: AnyScorer, run: Run) -> dict[str, list[Continuation]]:
        """The sets of texts, read where they are kept."""
        names = [f"{part}-{who}" for part in _PARTS for who in _WRITERS]
        if all(request.text_path(name).is_file() for name in names):
            self.say(f"Tuning a generator is done already: {shown}")
            return {name: read_texts(request.text_path(name), self._prompts_of(name)) for name in names}
        self.say(f"Tuning a generator: {shown}")
        policy = Policy.load(resolve(self.name), GENERATOR_LORA, seed=self.seed, device=self.models.device)
        reference = self.models.backbone(self.name)
        team = RedTeam(
            request, reference, policy, {request.detector: target}, self.prompts, {}, self.say, lambda *step: None
        )
        team.train(run)
        return {name: team.texts(name) for name in names}

    def _prompts_of(self, name: str) -> list[Prompt]:
        return self.prompts[name.partition("-")[0]]


def check_methods(names: Sequence[str]) -> None:
    """Refuse what is no method of `pawn redteam`, or needs a package that is not there.

    Raises:
        UsageError: naming it.
    """
    for name in names:
        RedTeamRequest(method=name, inputs=(), output=Path(), cache=Path())
