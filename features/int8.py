"""A Llama with most of its products in eight-bit integers: twice as fast each, nearly as exact as in bfloat16.

The maps that read a norm (queries, keys and values; the two maps into the feed-forward block) are half of all products.
Their inputs are rounded to 8 bits for each token, their weights for each output. A few channels are far larger than the
others and would leave these few levels, so a part of every channel's size is moved from the input into the weights
beforehand (SmoothQuant, arXiv 2211.10438, equation 4, with alpha = 0.5); the norm's weight takes it up, at no cost. How
large channels are is a matter of the model more than of the text: random tokens tell it as well as prose does. The
other maps stay as they are: the one out of the feed-forward block has inputs that 8 bits do not hold well.

Shape legend: rows = tokens of all documents, d = hidden size.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from features.errors import BackboneError
from features.llama import Layer, Llama

LARGEST = 127
"""Levels on either side of 0."""

ZERO = 128
"""The level of 0 of an input: oneDNN's fast product takes unsigned inputs."""

PROBE_SHAPE = (8, 128)
"""Random sequences that tell how large channels are, and their tokens."""

TINY = 1e-6


class Int8Linear:
    """A linear map whose weights are rounded to 8 bits, with a scale for each output.

    Args:
        weight: (outputs, inputs), any float type.
    """

    def __init__(self, weight: Tensor) -> None:
        exact = weight.float()
        largest = exact.abs().amax(1).clamp_(min=TINY)  # (outputs,)
        levels = (exact * (LARGEST / largest)[:, None]).round_().to(torch.int8)
        self._scales = largest / LARGEST
        self._zeros = torch.zeros(len(exact), dtype=torch.int64)
        self._packed = torch.ops.onednn.qlinear_prepack(levels, None)

    def __call__(self, levels: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
        """(rows, inputs) uint8 around `ZERO`, in units of (rows, 1) scales -> (rows, outputs) of `dtype`."""
        product: Tensor = torch.ops.onednn.qlinear_pointwise(
            levels, 1.0, ZERO, self._packed, self._scales, self._zeros, None, 1.0, 0, dtype, "none", [], ""
        )
        return product.mul_(scales)


@dataclass(frozen=True, slots=True)
class Int8Layer(Layer):
    """A layer with its rounded maps; the two norms are float32 and have taken up what was moved into the weights."""

    qkv8: Int8Linear
    gate8: Int8Linear
    up8: Int8Linear


class Int8Llama(Llama):
    """A `Llama` with the maps that read a norm in eight-bit integers, on a processor that multiplies them."""

    def __init__(self, config: dict[str, Any], weights: dict[str, Tensor]) -> None:
        """Put checked parts together, and round.

        Raises:
            BackboneError: when the processor has no products of eight-bit integers.
        """
        if not torch.cpu._is_vnni_supported():
            raise BackboneError(
                "this processor has no products of eight-bit integers (VNNI); leave :int8 out of the backbone's name"
            )
        super().__init__(config, weights)
        with torch.inference_mode():
            norms = _Recorder(config, weights).largest()
            self._layers = [
                _rounded(layer, *norms[2 * number : 2 * number + 2]) for number, layer in enumerate(self._layers)
            ]

    def _projected(self, layer: Layer, x: Tensor) -> Tensor:
        assert isinstance(layer, Int8Layer)
        return layer.qkv8(*self._levels(x, layer.attention_norm), x.dtype)

    def _gated(self, layer: Layer, x: Tensor) -> Tensor:
        assert isinstance(layer, Int8Layer)
        levels, scales = self._levels(x, layer.mlp_norm)
        gate = functional.silu(layer.gate8(levels, scales, x.dtype), inplace=True)
        return gate.mul_(layer.up8(levels, scales, x.dtype))

    def _levels(self, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """The root-mean-square norm of (rows, d), rounded: (rows, d) uint8 and the size of a level, (rows, 1) of x's.

        The norm divides a row by one number, which changes its scale and no level: the division is left out.
        """
        exact = x.to(torch.float32, copy=True)
        norm = torch.linalg.vector_norm(exact, dim=-1, keepdim=True)
        scale = norm.square_().div_(x.shape[-1]).add_(self._epsilon).rsqrt_()  # (rows, 1)
        exact.mul_(weight)
        # Two passes: PyTorch's norm of infinite order takes twenty times as long.
        largest = torch.maximum(exact.amax(-1, keepdim=True), exact.amin(-1, keepdim=True).neg_()).clamp_(min=TINY)
        # A half more, since the conversion rounds down.
        levels = exact.mul_(LARGEST / largest).add_(ZERO + 0.5).to(torch.uint8)
        return levels, scale.mul_(largest).div_(LARGEST).to(x.dtype)


class _Recorder(Llama):
    """A `Llama` that notes the largest size of each channel that a norm gives."""

    def largest(self) -> list[Tensor]:
        """Of random tokens, (d,) float32: of each layer's two norms in turn, and of the last."""
        self._largest: list[Tensor] = []
        ids = torch.randint(0, self.vocab_size, PROBE_SHAPE, generator=torch.Generator().manual_seed(0))
        self.hidden_states(ids[:, : self.max_positions])
        return self._largest

    def _rms(self, x: Tensor, weight: Tensor) -> Tensor:
        normed = super()._rms(x, weight)
        self._largest.append(normed.abs().amax(0).float())
        return normed


def _rounded(layer: Layer, attention: Tensor, mlp: Tensor) -> Int8Layer:
    """A layer's rounded maps, given the largest sizes of the channels that they read, (d,) each."""
    qkv_share, mlp_share = _share(attention, layer.qkv), _share(mlp, layer.gate, layer.up)
    return Int8Layer(
        attention_norm=layer.attention_norm.float() / qkv_share,
        qkv=layer.qkv,
        out=layer.out,
        mlp_norm=layer.mlp_norm.float() / mlp_share,
        gate=layer.gate,
        up=layer.up,
        down=layer.down,
        qkv8=Int8Linear(layer.qkv.float() * qkv_share),
        gate8=Int8Linear(layer.gate.float() * mlp_share),
        up8=Int8Linear(layer.up.float() * mlp_share),
    )


def _share(largest: Tensor, *weights: Tensor) -> Tensor:
    """What is moved of each channel from the input into the weights, (d,): sqrt(its size there / its size here)."""
    here = torch.cat(weights).float().abs().amax(0).clamp_(min=TINY)
    return (largest.clamp(min=TINY) / here).sqrt_()
