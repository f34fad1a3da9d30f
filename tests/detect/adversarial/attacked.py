"""What the tests of attacks share: documents, and attacks by name with nothing at hand that they should not need."""

from collections.abc import Sequence

from detect.adversarial.attack import AttackMeans
from detect.adversarial.catalog import attack_named
from detect.adversarial.words import with_words, words_of
from features.backbone import Backbone
from features.documents import Document


def document(text: str, label: int | None = 1, domain: str | None = None) -> Document:
    return Document(id="d", text=text, label=label, domain=domain)


def no_backbone() -> Backbone:
    raise AssertionError("this attack asked for a language model")


WITHOUT = AttackMeans(backbone=no_backbone)


def attacked(
    name: str, texts: str | Sequence[str], strength: float = 1.0, seed: int = 0, means: AttackMeans = WITHOUT
) -> list[str]:
    """The changed texts of some texts (or of one)."""
    documents = [document(text) for text in ([texts] if isinstance(texts, str) else texts)]
    return [found.text for found in attack_named(name, means).apply(documents, strength, seed)]


def around_words(text: str) -> str:
    """A text with the same letter for each of its words: how many there are, and all that stands between them."""
    words = words_of(text)
    return with_words(text, words, dict.fromkeys(range(len(words)), "w"))
