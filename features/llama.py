"""The forward pass of a Llama, written out for a processor and for whole documents.

What a general implementation carries along is left away: caches of keys, masks, hooks, gradients. What is left is the
matrix products and as few passes over memory between them as they allow. Weights are mapped from disk, and neither
this nor what it needs imports transformers, which takes longer to import than the weights to load. Models that differ
in anything (biases, scaled rotations, several files) are left to transformers.

Shape legend: batch = documents, seq = tokens of the longest, rows = batch x seq, d = hidden size.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn import functional

from features.attention import blocked_causal

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"

PLAIN = {
    "model_type": "llama",
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "quantization_config": None,
    "rope_scaling": None,
}
"""What a configuration says of a model that this module covers; a field left out has that value."""


@dataclass(frozen=True, slots=True)
class Layer:
    """Weights of one layer, each (outputs, inputs); queries, keys and values are one product."""

    attention_norm: Tensor  # (d,)
    qkv: Tensor
    out: Tensor
    mlp_norm: Tensor  # (d,)
    gate: Tensor
    up: Tensor
    down: Tensor


class Llama:
    """A frozen Llama on the CPU: token ids to last hidden states, hidden states to logits."""

    model_type = "llama"

    def __init__(self, config: dict[str, Any], weights: dict[str, Tensor]) -> None:
        """Put checked parts together: see `load`."""
        self.heads = config["num_attention_heads"]
        self.key_heads = config.get("num_key_value_heads") or self.heads
        self.head_size = config.get("head_dim") or config["hidden_size"] // self.heads
        self.max_positions: int | None = config.get("max_position_embeddings")
        self._epsilon = config["rms_norm_eps"]
        self._theta = _rope(config)["rope_theta"]
        self._embedding = weights["model.embed_tokens.weight"]
        self._norm = weights["model.norm.weight"]
        self._head = weights.get("lm_head.weight", self._embedding)
        self._layers = [_layer(weights, f"model.layers.{i}.") for i in range(config["num_hidden_layers"])]
        self.dtype = self._embedding.dtype
        self.device = self._embedding.device

    @classmethod
    def load(cls, directory: Path, dtype: torch.dtype) -> Self | None:
        """The model of a directory, or None for whatever is not a whole and plain Llama in one file."""
        try:
            config = json.loads((directory / CONFIG_FILE).read_bytes())
            expected = _shapes(config) if is_plain(config) else None
            if expected is None:
                return None
            with safe_open(directory / WEIGHTS_FILE, framework="pt") as file:
                names = set(file.keys())
                tied = config.get("tie_word_embeddings", False)
                if names - {"lm_head.weight"} != set(expected) or ("lm_head.weight" in names) == tied:
                    return None
                weights = {name: file.get_tensor(name).to(dtype) for name in names}
        except (OSError, ValueError, LookupError, TypeError, SafetensorError):
            return None  # transformers says what is wrong with it
        head = weights.get("lm_head.weight", weights["model.embed_tokens.weight"])
        expected["lm_head.weight"] = expected["model.embed_tokens.weight"]
        if any(tuple(tensor.shape) != expected[name] for name, tensor in weights.items()) or head.ndim != 2:
            return None
        return cls(config, weights)

    @property
    def hidden_size(self) -> int:
        """Dimensions of the hidden state that the vocabulary projection reads."""
        return int(self._head.shape[1])

    @property
    def vocab_size(self) -> int:
        """Tokens that the projection knows."""
        return int(self._head.shape[0])

    @property
    def layer_count(self) -> int:
        """L, the number of the last layer."""
        return len(self._layers)

    def hidden_states(self, token_ids: Tensor) -> Tensor:
        """Last hidden states after the final norm, (batch, seq) -> (batch, seq, d)."""
        return self.layer_states(token_ids, [self.layer_count])[0]

    def layer_states(self, token_ids: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """Hidden states of each of some layers, (batch, seq) -> (batch, seq, d) each.

        Those of layer L are after the final norm, those of inner layers (1 to L - 1) before any.
        """
        batch, seq = token_ids.shape
        found: dict[int, Tensor] = {}
        x = functional.embedding(token_ids.flatten(), self._embedding)  # (rows, d)
        rotation = self._rotation(seq)
        for number, layer in enumerate(self._layers, start=1):
            x = x + self._attention(layer, self._projected(layer, x), rotation, batch)
            x = x + functional.linear(self._gated(layer, x), layer.down)
            if number in layers:
                found[number] = x
        if self.layer_count in found:
            found[self.layer_count] = self.final_norm(x)
        return [found[number].unflatten(0, (batch, seq)) for number in layers]

    def final_norm(self, hidden: Tensor) -> Tensor:
        """The norm between the last layer and the projection, (..., d) -> (..., d)."""
        return self._rms(hidden, self._norm)

    def project(self, hidden: Tensor) -> Tensor:
        """Vocabulary projection, (rows, d) -> (rows, vocab)."""
        return functional.linear(hidden, self._head)

    def _projected(self, layer: Layer, x: Tensor) -> Tensor:
        """Queries, keys and values of all heads before rotation, (rows, d) -> (rows, (heads + 2 key heads) x size)."""
        return functional.linear(self._rms(x, layer.attention_norm), layer.qkv)

    def _gated(self, layer: Layer, x: Tensor) -> Tensor:
        """What the last map of the feed-forward block reads, (rows, d) -> (rows, intermediate)."""
        h = self._rms(x, layer.mlp_norm)
        return functional.silu(functional.linear(h, layer.gate), inplace=True).mul_(functional.linear(h, layer.up))

    def _attention(self, layer: Layer, projected: Tensor, rotation: tuple[Tensor, Tensor], batch: int) -> Tensor:
        """Attention within each document, by rotated queries and keys: what `_projected` gives -> (rows, d)."""
        projected = projected.view(batch, -1, self.heads + 2 * self.key_heads, self.head_size)
        rotated, value = projected.split([self.heads + self.key_heads, self.key_heads], 2)
        cosine, sine = rotation
        # The sine of the first half is negative: rolling by half is then the whole of "rotate half".
        rotated = (rotated * cosine).addcmul_(rotated.roll(self.head_size // 2, -1), sine)
        query, key = rotated.split([self.heads, self.key_heads], 2)
        query, key, value = (states.transpose(1, 2) for states in (query, key, value))  # (batch, heads, seq, size)
        mixed = blocked_causal(query, key, value, self.head_size**-0.5)  # (batch, seq, heads, size)
        return functional.linear(mixed.flatten(2).flatten(0, 1), layer.out)

    def _rotation(self, seq: int) -> tuple[Tensor, Tensor]:
        """Cosine and signed sine of rotary position embedding (arXiv 2104.09864), each (seq, 1, head_size)."""
        half = self.head_size // 2
        frequencies = self._theta ** (-torch.arange(half, dtype=torch.float32) / half)
        angles = torch.arange(seq, dtype=torch.float32)[:, None] * frequencies  # (seq, half)
        cosine, sine = angles.cos(), angles.sin()
        halves = torch.cat([cosine, cosine], -1), torch.cat([-sine, sine], -1)
        return halves[0].to(self.dtype)[:, None], halves[1].to(self.dtype)[:, None]

    def _rms(self, x: Tensor, weight: Tensor) -> Tensor:
        """Root-mean-square norm (arXiv 1910.07467) in float32, rounded before the weight as Llama has it."""
        exact = x.to(torch.float32, copy=True)
        norm = torch.linalg.vector_norm(exact, dim=-1, keepdim=True)
        scale = norm.square_().div_(x.shape[-1]).add_(self._epsilon).rsqrt_()
        return exact.mul_(scale).to(x.dtype).mul_(weight)


def is_plain(config: Mapping[str, Any]) -> bool:
    """Whether a model's configuration is one that this module computes."""
    return (
        all(config.get(name, value) == value for name, value in PLAIN.items())
        and config.get("rms_norm_eps") is not None
        and _rope(config).get("rope_type", "default") == "default"
        and _rope(config).get("partial_rotary_factor", 1.0) == 1.0
        and _rope(config).get("rope_theta") is not None
    )


def _rope(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Parameters of the rotation: of their own since transformers 5, beside all others before."""
    return config.get("rope_parameters") or {"rope_theta": config.get("rope_theta")}


def _shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shape of each weight but that of the projection."""
    d, inner, heads = config["hidden_size"], config["intermediate_size"], config["num_attention_heads"]
    size = config.get("head_dim") or d // heads
    key_heads = config.get("num_key_value_heads") or heads
    layer = {
        "input_layernorm": (d,),
        "self_attn.q_proj": (heads * size, d),
        "self_attn.k_proj": (key_heads * size, d),
        "self_attn.v_proj": (key_heads * size, d),
        "self_attn.o_proj": (d, heads * size),
        "post_attention_layernorm": (d,),
        "mlp.gate_proj": (inner, d),
        "mlp.up_proj": (inner, d),
        "mlp.down_proj": (d, inner),
    }
    shapes: dict[str, tuple[int, ...]] = {
        f"model.layers.{i}.{name}.weight": shape
        for i in range(config["num_hidden_layers"])
        for name, shape in layer.items()
    }
    return shapes | {"model.embed_tokens.weight": (config["vocab_size"], d), "model.norm.weight": (d,)}


def _layer(weights: dict[str, Tensor], prefix: str) -> Layer:
    def named(name: str) -> Tensor:
        return weights[f"{prefix}{name}.weight"]

    return Layer(
        attention_norm=named("input_layernorm"),
        qkv=torch.cat([named(f"self_attn.{part}_proj") for part in "qkv"]),
        out=named("self_attn.o_proj"),
        mlp_norm=named("post_attention_layernorm"),
        gate=named("mlp.gate_proj"),
        up=named("mlp.up_proj"),
        down=named("mlp.down_proj"),
    )
