"""Human texts cut in two: the beginning is a prompt, the rest is what a person wrote after it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from detect.splits import sources, split_groups
from features.backbone import Backbone
from features.documents import Document, canonical_text
from features.errors import InputError, UsageError

MIN_PROMPT_TOKENS = 2
"""A shorter beginning says nothing about what follows."""


@dataclass(frozen=True)
class Prompt:
    """The beginning of a human text, and how its writer went on.

    Attributes:
        document: the human text, with its domain and group.
        text: the beginning, whole words.
        token_ids: of the beginning.
        human: the continuation, `new_tokens` tokens long.
        human_ids: of the continuation.
    """

    document: Document
    text: str
    token_ids: tuple[int, ...]
    human: str
    human_ids: tuple[int, ...]


def cut_prompts(
    documents: Sequence[Document], backbone: Backbone, *, prompt_tokens: int, new_tokens: int
) -> list[Prompt]:
    """The prompts of the human texts that are long enough, in order; one for each source, its first text's.

    A text is cut between two words, after at most `prompt_tokens` tokens, and ends `new_tokens` tokens later: what a
    generator writes on the prompt in as many tokens is compared with it.

    Args:
        documents: labelled; machine texts are passed over.
        backbone: whose tokens are counted.
        prompt_tokens: most tokens of a prompt.
        new_tokens: tokens of a continuation.

    Raises:
        UsageError: for a prompt of fewer than `MIN_PROMPT_TOKENS` tokens.
    """
    if prompt_tokens < MIN_PROMPT_TOKENS:
        raise UsageError(f"expected prompts of at least {MIN_PROMPT_TOKENS} tokens, got {prompt_tokens}")
    human = [document for document in documents if document.label == 0]
    first = {source: index for index, source in reversed(list(enumerate(sources(human))))}
    chosen = [human[index] for index in sorted(first.values())]
    encodings = backbone.encode([document.text for document in chosen], prompt_tokens + new_tokens)
    found = []
    for document, encoding in zip(chosen, encodings, strict=True):
        text, ends = canonical_text(document.text), encoding.offsets[:, 1]
        if len(ends) <= prompt_tokens:
            continue
        cut = text.rfind(" ", 0, int(ends[prompt_tokens - 1]) + 1)
        begin = int(np.searchsorted(ends, cut, side="right"))
        if cut < 0 or begin < MIN_PROMPT_TOKENS or len(ends) < begin + new_tokens:
            continue
        ids = [int(token) for token in encoding.token_ids[: begin + new_tokens]]
        rest = text[cut : int(ends[begin + new_tokens - 1])].strip()
        found.append(Prompt(document, text[:cut], tuple(ids[:begin]), rest, tuple(ids[begin:])))
    return found


def share_out(prompts: Sequence[Prompt], counts: Mapping[str, int], seed: int) -> dict[str, list[Prompt]]:
    """Parts of so many prompts each; texts of one group or source are in one part.

    Args:
        prompts: each of a source of its own.
        counts: how many each part gets, by name.
        seed: another seed, other parts.

    Raises:
        InputError: when there are too few prompts for that.
    """
    wanted = sum(counts.values())
    fractions = {name: count / wanted for name, count in counts.items()}
    parts: dict[str, list[Prompt]] = {name: [] for name in counts}
    names = split_groups([prompt.document for prompt in prompts], fractions, seed)
    for index in np.random.default_rng(seed).permutation(len(prompts)):
        parts[names[index]].append(prompts[index])
    for name, count in counts.items():
        if len(parts[name]) < count:
            raise InputError(
                f"expected {wanted} human texts that are long enough, {count} of them for {name}, found {len(prompts)} "
                f"({len(parts[name])} for {name}); ask for fewer or shorter ones, or give more --data"
            )
    return {name: parts[name][:count] for name, count in counts.items()}
