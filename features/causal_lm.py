"""What a backbone needs of a language model, and any causal LM of transformers as one.

Layers are numbered 1 to L as transformers numbers `hidden_states`: layer i is what block i adds up to, before any norm;
layer L, the last, is after the final norm, as the vocabulary projection reads it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from features.attention import BLOCKED_CAUSAL, register
from features.errors import BackboneError

PROBE_TOLERANCE = 1e-3
"""Relative to the largest number: a float32 model gave 0 for causality and 4e-7 for its projection."""


FINAL_NORMS = ("norm", "ln_f", "final_layer_norm", "final_layernorm", "norm_f")
"""What transformers' architectures call the norm between their last block and the projection."""


class CausalLM(Protocol):
    """A frozen left-to-right language model, called under `torch.inference_mode`."""

    dtype: torch.dtype
    device: torch.device

    @property
    def model_type(self) -> str:
        """The architecture's name."""
        ...

    @property
    def hidden_size(self) -> int:
        """Dimensions of the hidden state that the vocabulary projection reads."""
        ...

    @property
    def vocab_size(self) -> int:
        """Tokens that the projection knows."""
        ...

    @property
    def layer_count(self) -> int:
        """L, the number of the last layer."""
        ...

    @property
    def max_positions(self) -> int | None:
        """Longest input in tokens, where the architecture has a limit."""
        ...

    def hidden_states(self, token_ids: Tensor) -> Tensor:
        """Last hidden states, (batch, seq) -> (batch, seq, hidden); rows may be padded on the right."""
        ...

    def layer_states(self, token_ids: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """Hidden states of each of some layers (1 to L), (batch, seq) -> (batch, seq, hidden) each."""
        ...

    def final_norm(self, hidden: Tensor) -> Tensor:
        """What the last layer's states go through before the projection, for those of an inner layer."""
        ...

    def project(self, hidden: Tensor) -> Tensor:
        """Vocabulary projection, (rows, hidden) -> (rows, vocab)."""
        ...


class TransformersLM:
    """A causal LM of transformers."""

    def __init__(self, model: Any) -> None:
        """`model` is an nn.Module with more attributes than that declares."""
        self.model = model.eval().requires_grad_(False)
        self._decoder = model.base_model
        self._head = model.get_output_embeddings()
        self.dtype: torch.dtype = next(model.parameters()).dtype
        self.device: torch.device = next(model.parameters()).device

    @classmethod
    def load(cls, path: Path, device: str, dtype: torch.dtype) -> Self:
        """Load from a directory; BackboneError when it holds no whole causal LM."""
        return cls(_load(path, device, dtype))

    @property
    def model_type(self) -> str:
        """The architecture's name."""
        return str(self.model.config.model_type)

    @property
    def hidden_size(self) -> int:
        """Dimensions of the hidden state that the vocabulary projection reads."""
        return int(self._head.weight.shape[1])

    @property
    def vocab_size(self) -> int:
        """Tokens that the projection knows."""
        return int(self._head.weight.shape[0])

    @property
    def layer_count(self) -> int:
        """L, the number of the last layer."""
        return int(self.model.config.get_text_config().num_hidden_layers)

    @property
    def max_positions(self) -> int | None:
        """Longest input in tokens, where the architecture has a limit."""
        limit = getattr(self.model.config, "max_position_embeddings", None)
        return int(limit) if isinstance(limit, int) and limit > 0 else None

    def hidden_states(self, token_ids: Tensor) -> Tensor:
        """Last hidden states, (batch, seq) -> (batch, seq, hidden)."""
        states: Tensor = self._decoder(input_ids=token_ids, use_cache=False).last_hidden_state
        return states

    def layer_states(self, token_ids: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """Hidden states of each of some layers (1 to L), (batch, seq) -> (batch, seq, hidden) each."""
        # A list keeps only those layers; architectures that know it as a flag alone keep all.
        output = self._decoder(input_ids=token_ids, use_cache=False, output_hidden_states=list(layers))
        last = self.layer_count
        return [output.last_hidden_state if layer == last else output.hidden_states[layer] for layer in layers]

    def final_norm(self, hidden: Tensor) -> Tensor:
        """The norm between the last block and the projection.

        Raises:
            BackboneError: when it is not where most architectures have it.
        """
        for name in FINAL_NORMS:
            if isinstance(norm := getattr(self._decoder, name, None), nn.Module):
                normed: Tensor = norm(hidden)
                return normed
        raise BackboneError(
            f"no early exit from a {self.model_type}: its final norm is none of {', '.join(FINAL_NORMS)}; "
            "name another language model as the observer"
        )

    def project(self, hidden: Tensor) -> Tensor:
        """Vocabulary projection, (rows, hidden) -> (rows, vocab)."""
        logits: Tensor = self._head(hidden)
        return logits

    def check(self, name: str, ids: Tensor) -> None:
        """Refuse a model that sees the future, or whose logits are not its projection of the hidden state.

        Args:
            name: for the message.
            ids: (1, seq) some tokens.

        Raises:
            BackboneError: saying which of the two.
        """
        changed = ids.clone()
        changed[0, -1] = (changed[0, -1] + 1) % self.vocab_size
        hidden, other = self.hidden_states(ids)[:, :-1], self.hidden_states(changed)[:, :-1]
        if _deviates(hidden.float(), other.float(), self.dtype):
            raise BackboneError(
                f"backbone {name} is not causal: a later token changes the hidden states of earlier ones; "
                "choose a left-to-right language model"
            )
        expected = self.model(input_ids=ids, use_cache=False).logits[:, :-1].float()
        if _deviates(expected, self.project(hidden).float(), self.dtype):
            raise BackboneError(
                f"backbone {name} changes its logits after the vocabulary projection "
                "(scaling or soft-capping), which is not supported; choose another model"
            )


def _deviates(expected: Tensor, found: Tensor, dtype: torch.dtype) -> bool:
    """Whether two results of the same sum differ by more than rounding in that dtype explains."""
    tolerance = max(PROBE_TOLERANCE, 4 * torch.finfo(dtype).eps)
    return bool((expected - found).abs().max() > tolerance * expected.abs().max())


def _load(path: Path, device: str, dtype: torch.dtype) -> nn.Module:
    import transformers  # 2 s to import: only when a model is really loaded

    transformers.utils.logging.disable_progress_bar()
    level = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()
    try:
        loaded: Any = transformers.AutoModelForCausalLM.from_pretrained(
            path,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except Exception as error:  # whatever a value that the architecture cannot have raises
        raise BackboneError(
            f"{path} does not load as a causal language model: {str(error).strip().splitlines()[0]}; "
            "expected config.json and matching *.safetensors of a transformers causal LM"
        ) from error
    finally:
        transformers.utils.logging.set_verbosity(level)
    model, info = loaded
    if info["missing_keys"]:  # transformers would leave them as random as they were born
        names = sorted(info["missing_keys"])
        raise BackboneError(
            f"{path} lacks {len(names)} weights of a {model.config.model_type} language model, "
            f"{names[0]} among them; save the whole causal language model, head included"
        )
    if model.get_output_embeddings() is None:
        raise BackboneError(f"{path} holds a {model.config.model_type} without a vocabulary projection")
    if device == "cpu" and model.config._attn_implementation == "sdpa":  # others need what only they can do
        register()
        model.set_attn_implementation(BLOCKED_CAUSAL)
    return model.to(device)
