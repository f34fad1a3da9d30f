"""Causal attention on a processor, in blocks of queries: faster there than PyTorch's fused kernel.

The fused kernel spends its time packing small tiles. Here the products of a block of queries with all the keys that
it may see are one batched matrix product each, the scores of a block stay in cache, and keys that no query of a block
may see are never touched. It is offered to transformers under a name, so that every architecture that lets its
attention be chosen can use it; what it does not cover goes to the library's own.
"""

from typing import Any

import torch
from torch import Tensor, nn

BLOCKED_CAUSAL = "blocked_causal"
"""The name for `attn_implementation`."""

QUERY_BLOCK = 128
"""Queries at a time: the fastest of 64 to 512 at 128 to 512 tokens."""

SCORES = 262_144
"""Scores at a time, 1 MB in float32: short documents go through together."""


def register() -> None:
    """Make `blocked_causal` known to transformers."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(BLOCKED_CAUSAL, blocked_causal_attention)
    # The masks of sdpa: none at all where the only rule is causality.
    AttentionMaskInterface.register(BLOCKED_CAUSAL, sdpa_mask)


def blocked_causal_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """softmax(q k' scaling) v under a causal mask, in the shape of transformers' attention functions.

    Args:
        module: the layer that asks.
        query: (batch, heads, seq, head_dim).
        key: (batch, key heads, seq, head_dim); each key head serves heads / key heads of the query's.
        value: as key.
        attention_mask: anything but None goes to the library's attention.
        scaling: default: head_dim ** -0.5.
        options: what else the layer asks for; anything that changes the result goes to the library's attention.

    Returns:
        (batch, seq, heads, head_dim) and no weights.
    """
    unusual = {name for name in ("softcap", "position_bias", "s_aux", "cache") if options.get(name) is not None}
    plain_shapes = query.shape[2] == key.shape[2] and query.shape[-1] == value.shape[-1]
    causal = options.get("is_causal") is not False and getattr(module, "is_causal", True)
    if attention_mask is not None or unusual or not plain_shapes or not causal or options.get("dropout"):
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
    return _blocked(query, key, value, query.shape[-1] ** -0.5 if scaling is None else scaling), None


def _blocked(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    batch, heads, seq, size = query.shape
    out = query.new_empty(batch, seq, heads, size)
    future = torch.full((QUERY_BLOCK, QUERY_BLOCK), float("-inf"), device=query.device).triu(1)
    together = max(1, SCORES // (heads * min(seq, QUERY_BLOCK) * seq))
    for low in range(0, batch, together):
        documents = slice(low, min(low + together, batch))
        keys, values = (_per_head(states[documents], heads) for states in (key, value))  # (doc x head, seq, size)
        keys = keys.transpose(1, 2)
        for start in range(0, seq, QUERY_BLOCK):
            stop = min(start + QUERY_BLOCK, seq)
            block = query[documents, :, start:stop].reshape(-1, stop - start, size) * scaling
            scores = torch.bmm(block, keys[:, :, :stop]).float()  # (doc x head, block, keys seen)
            scores[:, :, start:] += future[: stop - start, : stop - start]
            mixed = torch.bmm(scores.softmax(-1).to(query.dtype), values[:, :stop])
            out[documents, start:stop] = mixed.unflatten(0, (-1, heads)).transpose(1, 2)
    return out


def _per_head(states: Tensor, heads: int) -> Tensor:
    """(doc, key heads, seq, size) -> (doc x heads, seq, size)."""
    return states.repeat_interleave(heads // states.shape[1], 1).flatten(0, 1)
