"""Prompts -> continuations: batched sampling from a causal language model."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer

from detect.adversarial.prompts import Prompt
from features.documents import canonical_text
from features.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """How texts are drawn.

    Attributes:
        new_tokens: of each continuation at most.
        temperature: of the next-token distribution.
        top_p: likeliest tokens are drawn from until they have this probability; 1: all, as Nicks et al. 2024 do.
        top_k: only so many of the likeliest tokens are drawn from; 0: all.
        repetition_penalty: tokens that were used are less likely by it (Keskar et al. 2019, 1909.05858); 1: none.
        may_end: whether the model may end a text before `new_tokens`; else what would end it is never drawn.
        batch_size: prompts continued together.

    Raises:
        UsageError: naming the first setting that cannot be.
    """

    new_tokens: int = 64
    temperature: float = 0.8
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    may_end: bool = False
    batch_size: int = 64

    def __post_init__(self) -> None:
        for name in ("new_tokens", "batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"expected {name} of at least 1, got {getattr(self, name)}")
        if self.temperature <= 0:
            raise UsageError(f"expected a temperature above 0, got {self.temperature}")
        if self.top_k < 0 or self.repetition_penalty < 1:
            raise UsageError(
                f"expected a top_k of at least 0 and a repetition penalty of at least 1, got {self.top_k} and "
                f"{self.repetition_penalty}"
            )
        if not 0 < self.top_p <= 1:
            raise UsageError(f"expected a top_p above 0 and at most 1, got {self.top_p}")


@dataclass(frozen=True)
class Continuation:
    """What was written on a prompt.

    Attributes:
        token_ids: as drawn.
        text: in canonical form, without what is no printable character.
        whole: the prompt and the text, joined as they were written.
    """

    token_ids: tuple[int, ...]
    text: str
    whole: str


@torch.inference_mode()
def sample(
    model: Any,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    settings: SamplingSettings,
    seed: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Continuation]:
    """One continuation of each prompt, in order; the same on every call with the same model, prompts and seed.

    Args:
        model: a causal LM of transformers.
        tokenizer: its own.
        prompts: to go on with.
        settings: how texts are drawn.
        seed: of the drawing; the global random state is as before afterwards.
        progress: told texts done and texts in all.
    """
    found: list[Continuation] = []
    with torch.random.fork_rng():
        for start in range(0, len(prompts), settings.batch_size):
            batch = prompts[start : start + settings.batch_size]
            torch.manual_seed(int(np.random.SeedSequence([seed, start]).generate_state(1, np.uint64)[0] >> 1))
            for prompt, ids in zip(batch, _continue(model, batch, settings), strict=True):
                found.append(_continuation(tokenizer, prompt, ids))
            progress(len(found), len(prompts))
    return found


def _continue(model: Any, prompts: Sequence[Prompt], settings: SamplingSettings) -> list[list[int]]:
    """Drawn token ids, `new_tokens` for each prompt, or those before the end of the text."""
    longest = max(len(prompt.token_ids) for prompt in prompts)
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)  # (batch, longest), padded on the left
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt.token_ids) :] = torch.tensor(prompt.token_ids)
        mask[row, longest - len(prompt.token_ids) :] = 1
    ends = _ends(model)
    with _rows_in_one_piece(model.get_output_embeddings()):
        drawn = _draw(model, ids, mask, ends, settings)
    return [list(takewhile(lambda token: token not in ends, row)) for row in drawn[:, longest:].tolist()]


@contextmanager
def _rows_in_one_piece(head: torch.nn.Module) -> Iterator[None]:
    """Give a vocabulary projection rows that lie side by side.

    After the prompts, `generate` gives it the last of each row's positions, a view with gaps, for which torch copies
    the weights once for each row: 8.7 GB and half a minute for 32 prompts and 150,000 tokens of vocabulary.
    """
    hook = head.register_forward_pre_hook(lambda module, inputs: (inputs[0].contiguous(),))
    try:
        yield
    finally:
        hook.remove()


def _draw(
    model: Any, ids: torch.Tensor, mask: torch.Tensor, ends: Sequence[int], settings: SamplingSettings
) -> torch.Tensor:
    """Prompts (batch, longest) and what was drawn after them (batch, longest + drawn)."""
    # Whatever the model's own generation settings are (penalties, top-k), they are overruled.
    return model.generate(
        input_ids=ids.to(model.device),
        attention_mask=mask.to(model.device),
        do_sample=True,
        temperature=settings.temperature,
        top_p=settings.top_p,
        top_k=settings.top_k,
        repetition_penalty=settings.repetition_penalty,
        no_repeat_ngram_size=0,
        min_new_tokens=None if settings.may_end else settings.new_tokens,
        max_new_tokens=settings.new_tokens,
        pad_token_id=ends[0] if ends else 0,
    )


def _ends(model: Any) -> list[int]:
    """The tokens that end a text of a model."""
    found = model.generation_config.eos_token_id
    return [] if found is None else [found] if isinstance(found, int) else list(found)


def _continuation(tokenizer: Tokenizer, prompt: Prompt, ids: Sequence[int]) -> Continuation:
    beginning = tokenizer.decode(list(prompt.token_ids), skip_special_tokens=True)
    both = tokenizer.decode([*prompt.token_ids, *ids], skip_special_tokens=True)
    # The last token may end inside a character, which shows as U+FFFD and would give the generator away.
    written = "".join(c for c in both[len(beginning) :] if (c.isprintable() or c.isspace()) and c != "\ufffd")
    return Continuation(tuple(ids), canonical_text(written), canonical_text(prompt.text + written))
