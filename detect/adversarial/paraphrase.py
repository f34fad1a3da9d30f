"""RAID's paraphrase with a language model at hand in the place of DIPPER (arXiv 2405.07940, 2303.13408)."""

import random
import re
from collections.abc import Sequence
from functools import cached_property

from detect.adversarial.attack import AttackedText, AttackMeans, document_rng
from detect.adversarial.sentences import Sentence, sentences_of
from detect.adversarial.words import chosen
from detect.adversarial.writer import Writer
from features.documents import Document

PASSAGE = 3
"""Sentences that are written anew at a time, as RAID calls DIPPER."""

LEAST_SHARE = 0.25
"""Of a passage's words: what is shorter is no paraphrase, and the passage stays."""

_PREAMBLE = re.compile(r"^(?:sure|certainly|of course|here(?:'s| is| are))\b[^:\n]{0,100}:\s*", re.IGNORECASE)
_REMARK = re.compile(
    r"\b(?:rewritten|rewrote|rewrit(?:e|ing)|paraphras\w+|reword\w+|original (?:text|sentence))\b", re.IGNORECASE
)


class Paraphrase:
    """Passages of three sentences are put into other words by a language model; strength is the share of passages.

    Any causal or sequence-to-sequence model on disk can be named; `Writer` says how each is asked. Without a name it is
    the backbone, asked by a prompt; the default one, SmolLM2-135M, paraphrases badly: it copies, leaves things out and
    makes things up, so that what it does to a detector's figures says little about good paraphrasers. The model
    samples, seeded for each document.

    A passage stays as it was where the model gives less than a quarter of its words, so no text comes back empty.

    Args:
        means: whose backbone writes where no model is named.
        model: registered name, directory or hub id.
    """

    def __init__(self, means: AttackMeans, model: str | None = None) -> None:
        self._means = means
        self._model = model

    @cached_property
    def _writer(self) -> Writer:
        return Writer.named(self._model) if self._model else Writer.of_backbone(self._means.backbone())

    def apply(self, documents: Sequence[Document], strength: float, seed: int) -> list[AttackedText]:
        """One changed text for each document, in order.

        Raises:
            BackboneError: when the model cannot be found or loaded, or does not write.
        """
        return [
            AttackedText(self._changed(document.text, strength, document_rng(document, "paraphrase", seed)))
            for document in documents
        ]

    def _changed(self, text: str, strength: float, rng: random.Random) -> str:
        taken = chosen(rng, _passages(text), strength)
        if not taken:
            return text
        olds = [text[sentences[0].start : sentences[-1].end] for sentences in taken]
        news = self._writer.rewritten([" ".join(old.split()) for old in olds], seed=rng.getrandbits(63))
        parts, done = [], 0
        for sentences, old, written in zip(taken, olds, news, strict=True):
            new = cleaned(written)
            parts += [
                text[done : sentences[0].start],
                new if len(new.split()) >= LEAST_SHARE * len(old.split()) else old,
            ]
            done = sentences[-1].end
        return "".join([*parts, text[done:]])


def _passages(text: str) -> list[list[Sentence]]:
    sentences = sentences_of(text)
    return [sentences[start : start + PASSAGE] for start in range(0, len(sentences), PASSAGE)]


def cleaned(written: str) -> str:
    """What a model wrote without what is not text: announcement and remarks, quotation marks around it, line breaks.

    A last sentence that was cut off in the middle goes too.
    """
    text = " ".join(_PREAMBLE.sub("", written.strip()).split())
    if len(text) > 1 and text[0] == text[-1] == '"' and text.count('"') == 2:
        text = text[1:-1].strip()
    sentences = sentences_of(text)
    if len(sentences) > 1 and not re.search(r"[.!?…]\W*$", sentences[-1].text):
        del sentences[-1]
    while len(sentences) > 1 and _REMARK.search(sentences[-1].text):
        del sentences[-1]
    return text[: sentences[-1].end] if sentences else text
