"""DetectRL's mixing of human and machine sentences (Wu et al. 2024, arXiv 2410.23746), with labels that stay true."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from detect.adversarial.attack import AttackedText, AttackMeans, document_rng
from detect.adversarial.sentences import Sentence, sentences_of
from detect.adversarial.words import chosen
from features.documents import Document


@dataclass(frozen=True)
class Mixing:
    """Sentences of a text become sentences of a human text of the same domain; strength is the share of sentences.

    This is DetectRL's LLM-centred mixing, of 25%: a machine text stays mostly a machine's, which is why strengths end
    at a half. Its human-centred mixing would put machine sentences into texts that are called human, so that nobody
    could say what a detector should answer. Human texts are mixed here with other human texts instead: their label
    stays true, and sentences that do not belong together are no mark of machine texts.

    The partner is drawn from the human texts of the batch with the same domain, but for those of the same group and the
    text itself; one with enough sentences is preferred, and none of its sentences comes twice. A text without partner,
    or of one sentence, comes back as it was. The order of the batch changes nothing, its human texts do.
    """

    means: AttackMeans

    def apply(self, documents: Sequence[Document], strength: float, seed: int) -> list[AttackedText]:
        """One changed text for each document, in order."""
        humans = sorted(
            (_Human(document, sentences_of(document.text)) for document in documents if document.label == 0),
            key=lambda human: human.document.text,
        )
        return [
            AttackedText(_mixed(document, humans, strength, document_rng(document, "mixing", seed)))
            for document in documents
        ]


@dataclass(frozen=True)
class _Human:
    document: Document
    sentences: list[Sentence]

    def may_join(self, document: Document) -> bool:
        """Whether its sentences may go into a document."""
        same_source = document.group is not None and self.document.group == document.group
        same = same_source or self.document.text == document.text
        return self.document.domain == document.domain and bool(self.sentences) and not same


def _mixed(document: Document, humans: Sequence[_Human], strength: float, rng: random.Random) -> str:
    sentences = sentences_of(document.text)
    places = chosen(rng, range(len(sentences)), strength)
    partners = {human.document.text: human.sentences for human in humans if human.may_join(document)}
    if len(sentences) < 2 or not places or not partners:
        return document.text
    enough = [others for others in partners.values() if len(others) >= len(places)]
    others = rng.choice(enough or list(partners.values()))
    taken = places[: len(others)]
    parts, done = [], 0
    for order, place in enumerate(taken):
        parts += [document.text[done : sentences[place].start], others[order * len(others) // len(taken)].text]
        done = sentences[place].end
    return "".join([*parts, document.text[done:]])
