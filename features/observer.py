"""The second of two language models: what it predicts is held against what the backbone predicts.

Binoculars (arXiv 2401.12070) calls the two observer and performer; Fast-DetectGPT (arXiv 2310.05130) calls them
reference (or sampling) and scoring model. Here the backbone is the performer, the scoring model.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from features.backbone import Backbone
from features.errors import BackboneError, UsageError
from features.registry import INT8, lasting_name, resolve

EARLY_EXIT = "@"
"""`@20` is the backbone itself, read out after layer 20 by its own final norm and projection."""


@dataclass(frozen=True)
class Observer:
    """A language model over the vocabulary of a backbone.

    Attributes:
        name: as a person gave it; a local path whole.
        backbone: the model; of an early exit, the backbone that it is an exit of.
        layer: of an early exit; None for a model of its own.
    """

    name: str
    backbone: Backbone
    layer: int | None = None

    @property
    def identity(self) -> str:
        """What fingerprints know it by."""
        if self.layer is not None:
            return f"layer {self.layer}"
        return f"{self.backbone.files.weights_id}{INT8 if self.backbone.files.int8 else ''}"

    @torch.inference_mode()
    def normed(self, hidden: Tensor) -> Tensor:
        """States of the exit's layer as the projection reads them, (rows, hidden) -> (rows, hidden)."""
        return self.backbone.network.final_norm(hidden)


def load_observer(name: str, backbone: Backbone) -> Observer:
    """The observer of a backbone.

    Args:
        name: whatever `features.registry.resolve` takes, or `@LAYER` for an early exit of the backbone.
        backbone: the performer, on whose device and in whose dtype the observer runs.

    Raises:
        BackboneError: when the model cannot be loaded or has another vocabulary.
        UsageError: when the backbone has no such inner layer.
    """
    if name.startswith(EARLY_EXIT):
        last = backbone.network.layer_count
        number = name.removeprefix(EARLY_EXIT)
        if not number.isdecimal() or not 1 <= int(number) < last:
            raise UsageError(
                f"no early exit {name}: expected {EARLY_EXIT}1 to {EARLY_EXIT}{last - 1}, an inner layer of "
                f"{backbone.name}"
            )
        return Observer(name, backbone, int(number))
    observer = Backbone.load(resolve(name), device=str(backbone.device), dtype=backbone.dtype)
    _check_vocabulary(observer, backbone)
    return Observer(lasting_name(name), observer)


def _check_vocabulary(observer: Backbone, performer: Backbone) -> None:
    """BackboneError unless token by token both models predict the same strings."""
    sizes = observer.network.vocab_size, performer.network.vocab_size
    theirs, ours = observer.tokenizer.get_vocab(), performer.tokenizer.get_vocab()
    if sizes[0] == sizes[1] and theirs == ours:
        return
    different = min(
        (token for token in theirs.keys() | ours.keys() if theirs.get(token) != ours.get(token)), default=None
    )
    what = (
        f"they predict {sizes[0]} and {sizes[1]} tokens"
        if different is None
        else f"token {different!r} is number {theirs.get(different)} and {ours.get(different)}"
    )
    raise BackboneError(
        f"observer {observer.name} and backbone {performer.name} have different vocabularies ({what}); their "
        "predictions cannot be compared: choose two models of one family, such as a base model and its tuned variant"
    )
