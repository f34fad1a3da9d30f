"""What the tests of fine-tuned generators share: a tiny model, prompts for it, and detectors that count letters."""

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from detect.adversarial.prompts import Prompt, cut_prompts
from features.backbone import Backbone
from features.documents import Document
from features.registry import BackboneFiles, resolve
from tests.features.tiny_models import SENTENCES, Architecture, write_tiny_model

WORDS = " ".join(SENTENCES).split()


def human_documents(count: int, *, words: int = 40, seed: int = 0) -> list[Document]:
    """Labelled human texts of random words, each of a group of its own."""
    rng = random.Random(seed)
    return [
        Document(id=str(i), text=" ".join(rng.choices(WORDS, k=words)), label=0, domain="d", group=f"toy/a/b/{i}")
        for i in range(count)
    ]


def tiny_generator(folder: Path, architecture: Architecture = "llama") -> BackboneFiles:
    return resolve(str(write_tiny_model(folder / architecture, architecture)))


def tiny_prompts(files: BackboneFiles, count: int, *, prompt_tokens: int = 9, new_tokens: int = 20) -> list[Prompt]:
    backbone = Backbone.load(files, device="cpu")
    found = cut_prompts(human_documents(2 * count), backbone, prompt_tokens=prompt_tokens, new_tokens=new_tokens)
    return found[:count]


def letters_e(texts: Sequence[str]) -> np.ndarray:
    """A detector to which the letter e is the mark of the machine."""
    return np.array([text.count("e") for text in texts], dtype=np.float64)
