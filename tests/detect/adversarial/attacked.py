"""What the tests of attacks share: documents, and attacks by name with nothing at hand that they should not need."""

from collections.abc import Sequence

from detect.adversarial.attack import AttackMeans
from detect.adversarial.catalog import attack_named
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
