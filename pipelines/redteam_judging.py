"""Continuations before and after a fine-tuning -> detection by every detector, quality of text, and new detectors."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from cache.codec_catalog import AUTO, codec_named
from cache.store import FeatureStore
from detect.adversarial.generation import Continuation
from detect.adversarial.prompts import Prompt
from detect.adversarial.quality import (
    MeaningEncoder,
    Quality,
    disordered,
    distinct,
    mean_surprisal,
    perplexity,
    repetition,
    word_order,
)
from detect.trained import silent
from features.backbone import Backbone
from features.documents import Document
from features.errors import InputError
from features.extractor import Extractor
from pipelines.figures import JUDGEMENT_SCHEMA
from pipelines.judging import Contender, LabelledCorpora, Trainings, judged
from pipelines.protocols import Fold, attack_name, generator_name
from pipelines.scorers import AnyScorer, scores_of_texts

BEFORE, AFTER = "before", "after"
VALIDATION_EVERY = 5
"""A new detector chooses by every fifth prompt and learns from the others."""


@dataclass(frozen=True)
class Compared:
    """The documents that detectors are compared on; human, before and after are of the same prompts in order."""

    calibration: Sequence[Document]
    human: Sequence[Document]
    before: Sequence[Document]
    after: Sequence[Document]


def detection(name: str, scorer: AnyScorer, texts: Compared) -> tuple[pl.DataFrame, float]:
    """One detector's judgements, `held_out` "before" and "after", and the share of texts after that have no score.

    Thresholds come from the calibration texts, which are other human texts than those compared with.

    Raises:
        InputError: when no human text, or no text before, has a score.
    """
    parts = {"calibration": texts.calibration, "human": texts.human, BEFORE: texts.before, AFTER: texts.after}
    scores = {part: scores_of_texts(scorer, [document.text for document in own]) for part, own in parts.items()}
    for part in ("calibration", "human", BEFORE):
        if not np.isfinite(scores[part]).any():
            raise InputError(f"detector {name} scores none of the {part} texts; ask for longer ones (--new-tokens)")
    frames = []
    for held_out in (BEFORE, AFTER):
        offset = len(texts.human)
        frames += [
            _frame(name, held_out, "calibration", texts.calibration, scores["calibration"], offset),
            _frame(name, held_out, "test", texts.human, scores["human"], 0),
            _frame(name, held_out, "test", parts[held_out], scores[held_out], 0),
        ]
    return pl.concat(frames), float(np.mean(~np.isfinite(scores[AFTER])))


def _frame(
    detector: str, held_out: str, part: str, documents: Sequence[Document], scores: np.ndarray, offset: int
) -> pl.DataFrame:
    """Judgements of the texts that have a score; continuations of one prompt are one source."""
    kept = np.flatnonzero(np.isfinite(scores)).tolist()
    own = [documents[index] for index in kept]
    return pl.DataFrame(
        {
            "detector": detector,
            "protocol": "redteam",
            "held_out": held_out,
            "seed": 0,
            "part": part,
            "id": [document.id for document in own],
            "source": [offset + index for index in kept],
            "corpus": "prompts",
            "domain": [str(document.domain) for document in own],
            "generator": [generator_name(document) if document.label else "human" for document in own],
            "attack": [attack_name(document) for document in own],
            "label": [document.label for document in own],
            "n_tokens": 0,
            "score": scores[kept],
        },
        schema=JUDGEMENT_SCHEMA,
    )


def quality(
    prompts: Sequence[Prompt],
    texts: Sequence[Continuation],
    reference: Backbone,
    judge: Backbone | None,
    encoder: MeaningEncoder,
    *,
    unscored: float = 0.0,
    human: bool = False,
) -> Quality:
    """Figures of continuations of some prompts.

    Args:
        prompts: of the texts.
        texts: what was written on them.
        reference: the generator before it was tuned.
        judge: another language model, if there is one.
        encoder: of meaning.
        unscored: share of the texts without a score.
        human: the texts are the human continuations themselves.
    """
    words, wholes, beginnings = [t.text for t in texts], [t.whole for t in texts], [p.text for p in prompts]
    salad = [
        f"{prompt} {disordered(text, seed)}" for seed, (prompt, text) in enumerate(zip(beginnings, words, strict=True))
    ]
    surprisal = mean_surprisal(reference, wholes, beginnings)
    return Quality(
        perplexity=math.exp(surprisal),
        judge_perplexity=None if judge is None else perplexity(judge, wholes, beginnings),
        order=word_order(surprisal, mean_surprisal(reference, salad, beginnings)),
        distinct_1=distinct(words, 1),
        distinct_2=distinct(words, 2),
        distinct_3=distinct(words, 3),
        repetition=repetition(words),
        coherence=encoder.coherence(words),
        similarity=None if human else encoder.similarity(words, [prompt.human for prompt in prompts]),
        words=float(np.mean([len(text.split()) for text in words])),
        unscored=unscored,
    )


def chance_similarity(prompts: Sequence[Prompt], encoder: MeaningEncoder) -> float:
    """Similarity of human continuations to those of other prompts: what no meaning in common looks like."""
    human = [prompt.human for prompt in prompts]
    return encoder.similarity(human, [*human[1:], *human[:1]])


def retrained(
    names: Sequence[str],
    files: Mapping[str, Path],
    extractor: Extractor,
    cache: Path,
    seed: int,
    say: Callable[[str], None],
) -> pl.DataFrame:
    """Judgements of new detectors: each trained on texts from before, and again on texts from after.

    Henrique et al. (2304.08968) claim that the outputs of such a generator defeat a detector's training. Each new
    detector is judged on held-out texts of both kinds; human texts are the same throughout.

    Args:
        names: of `pawn train`.
        files: sets of texts by name: train-human, train-before, train-after, heldout-human, heldout-before,
            heldout-after, calibration-human.
        extractor: of the features that they read.
        cache: folder of the feature cache.
        seed: of the trainings.
        say: told of each training.

    Returns:
        Judgements; `detector` is "NAME, trained on before" or "... after", `held_out` what it is judged on.
    """
    codec = codec_named(AUTO, extractor.fingerprint.weights_id, extractor.fingerprint.layers)
    store = FeatureStore(cache, extractor.fingerprint, codec)
    # Apart, for a text that the generator writes before and after alike is one of each.
    corpora = {kind: _corpora(files, kind, extractor, store) for kind in (BEFORE, AFTER)}
    folds = {kind: _fold(own, kind) for kind, own in corpora.items()}
    frames = []
    for name in names:
        for kind in (BEFORE, AFTER):
            label = f"{name}, trained on {kind}"
            say(f"training {label}: {len(folds[kind].train)} texts")
            detector = Contender(label, name).fitted(corpora[kind], folds[kind], seed, silent, Trainings())
            frames += [judged(corpora[on], folds[on], detector, label, seed) for on in (BEFORE, AFTER)]
    return pl.concat(frames)


def _corpora(files: Mapping[str, Path], kind: str, extractor: Extractor, store: FeatureStore) -> LabelledCorpora:
    """Human texts and the machine's of one kind."""
    own = {name: [path] for name, path in files.items() if name.endswith(("-human", f"-{kind}"))}
    return LabelledCorpora.load(own, extractor, store)


def _fold(corpora: LabelledCorpora, kind: str) -> Fold:
    """What a new detector learns from, chooses by and is judged on; thresholds come from human texts alone."""
    part = np.array([name.partition("-")[0] for name in corpora.names])
    turn = np.array([int(document.id.rpartition(":")[2]) for document in corpora.data.documents])
    chosen_by = (part == "train") & (turn % VALIDATION_EVERY == 0)
    return Fold(
        protocol="retrained",
        held_out=kind,
        train=np.flatnonzero((part == "train") & ~chosen_by),
        validation=np.flatnonzero(chosen_by),
        calibration=np.flatnonzero(part == "calibration"),
        test=np.flatnonzero(part == "heldout"),
    )
