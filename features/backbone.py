"""A frozen causal language model with its tokenizer, and the identity of what it computes."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from features.causal_lm import CausalLM, TransformersLM
from features.documents import TEXT_VERSION, canonical_text
from features.errors import BackboneError, UsageError
from features.int8 import Int8Llama
from features.llama import Llama
from features.memory import prepare_memory
from features.metrics import METRIC_VERSION
from features.registry import INT8, BackboneFiles
from features.token_kinds import token_kinds

CHARACTERS_PER_TOKEN = 32
"""A text is cut to its first max_length x 32 characters before it is tokenised, so that a 10 MB document
costs no more than a long one. Eight times what English takes: short of long runs of one sign, which are one token, it
cuts no text that max_length would not."""

PROBE_TOKENS = 8


@dataclass(frozen=True, slots=True)
class Encoding:
    """A text as the model reads it."""

    token_ids: np.ndarray  # (n,) int32
    offsets: np.ndarray  # (n, 2) int32, characters [start, end) of the canonical text
    truncated: bool


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """Everything that changes the bytes of a feature. Features of different fingerprints never mix.

    Attributes:
        weights_id: of the language model.
        tokenizer_id: of its tokenizer.
        dtype: that it computes in; "int8+" before it where most products are of eight-bit integers.
        max_length: tokens of a text that are read.
        metric_version: of what is computed from logits.
        text_version: of what is done to a text before it is tokenised.
        layers: whose hidden states are kept, ascending; () for the last alone.
        observer: of the second of two models (`features.observer.Observer.identity`); "" where there is one model.
    """

    weights_id: str
    tokenizer_id: str
    dtype: str
    max_length: int
    metric_version: int = METRIC_VERSION
    text_version: int = TEXT_VERSION
    layers: tuple[int, ...] = ()
    observer: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))  # JSON has lists

    @property
    def digest(self) -> str:
        """16 hex digits: the name of the cache folder."""
        return fingerprint_digest(self.to_dict())

    @property
    def layers_kept(self) -> int:
        """How many layers' hidden states lie side by side in each token's."""
        return layers_kept(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """The fields, JSON-able.

        Layers and observer are left out where there are none: caches older than these fields keep their digests.
        """
        fields = asdict(self) | {"layers": list(self.layers)}
        return {name: value for name, value in fields.items() if name not in ("layers", "observer") or value}


def fingerprint_digest(fields: Mapping[str, Any]) -> str:
    """The digest of a fingerprint given as its JSON-able fields, those of other versions included."""
    return hashlib.sha256(json.dumps(dict(fields), sort_keys=True).encode()).hexdigest()[:16]


def layers_kept(fields: Mapping[str, Any]) -> int:
    """How many layers' hidden states features hold, by their fingerprint's JSON-able fields."""
    return len(fields.get("layers", ())) or 1


class Backbone:
    """A frozen causal LM: texts to tokens, tokens to last hidden states, hidden states to logits."""

    def __init__(self, name: str, files: BackboneFiles, network: CausalLM, tokenizer: Tokenizer) -> None:
        """Put loaded parts together."""
        self.name = name
        self.files = files
        self.network = network
        self.tokenizer = tokenizer
        self.dtype: torch.dtype = network.dtype
        self.device: torch.device = network.device

    @classmethod
    def load(cls, files: BackboneFiles, *, device: str | None = None, dtype: torch.dtype | None = None) -> "Backbone":
        """Load weights and tokenizer from disk, and prove that they are what a detector needs.

        Args:
            files: where the model lies (`features.registry.resolve`).
            device: "cpu" or "cuda"; default: cuda when there is one.
            dtype: default: `native_dtype(device)`.

        Raises:
            BackboneError: when the model cannot be loaded, looks ahead, or changes its logits after the
                vocabulary projection; when it cannot be had in eight-bit integers and is asked for so.
        """
        prepare_memory()
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        dtype = dtype or native_dtype(device)
        backbone = cls(files.name, files, _network(files, device, dtype), load_tokenizer(files.path))
        backbone._probe()
        return backbone

    @cached_property
    def token_kinds(self) -> np.ndarray:
        """The kind of each token of the vocabulary (`features.token_kinds`): (vocab,) uint8."""
        return token_kinds(self.tokenizer)

    @cached_property
    def model(self) -> Any:
        """The transformers causal LM, for what only it can do: generating text. Loaded when first asked for."""
        found = self.network if isinstance(self.network, TransformersLM) else None
        return (found or TransformersLM.load(self.files.path, str(self.device), self.dtype)).model

    @property
    def hidden_size(self) -> int:
        """Dimensions of the hidden state that the vocabulary projection reads."""
        return self.network.hidden_size

    @property
    def max_positions(self) -> int | None:
        """Longest input in tokens, where the architecture has a limit."""
        return self.network.max_positions

    def check_layers(self, layers: Sequence[int]) -> tuple[int, ...]:
        """Layers as a fingerprint has them: ascending, and () for the last alone.

        Raises:
            UsageError: for a layer that the model has not, or one named twice.
        """
        last = self.network.layer_count
        if wrong := [layer for layer in layers if not 1 <= layer <= last]:
            raise UsageError(
                f"backbone {self.name} has no layer {wrong[0]}; expected layers from 1 to {last}, which is after the "
                "final norm"
            )
        if len(set(layers)) < len(layers):
            raise UsageError(f"expected each layer once, got {', '.join(map(str, layers))}")
        return () if tuple(layers) == (last,) else tuple(sorted(layers))

    def fingerprint(self, max_length: int, *, layers: Sequence[int] = (), observer: str = "") -> Fingerprint:
        """Identity of the features that this model gives under a length limit.

        Args:
            max_length: tokens of a text that are read.
            layers: whose hidden states are kept; default: the last alone.
            observer: identity of the second of two models, where there is one.

        Raises:
            BackboneError: when the model cannot read that many tokens.
            UsageError: as `check_layers`.
        """
        if self.max_positions is not None and max_length > self.max_positions:
            raise BackboneError(
                f"--max-length {max_length} is more than backbone {self.name} can read: "
                f"{self.max_positions} tokens; ask for at most that"
            )
        return Fingerprint(
            weights_id=self.files.weights_id,
            tokenizer_id=self.files.tokenizer_id,
            dtype=("int8+" if self.files.int8 else "") + str(self.dtype).removeprefix("torch."),
            max_length=max_length,
            layers=self.check_layers(layers),
            observer=observer,
        )

    def encode(self, texts: Sequence[str], max_length: int) -> list[Encoding]:
        """Tokenise the canonical form of texts, cut to `max_length` tokens.

        Offsets are characters of `canonical_text(text)`. Special tokens written in a text are plain text.
        """
        limit = max_length * CHARACTERS_PER_TOKEN
        texts = [canonical_text(text) for text in texts]
        encodings = self.tokenizer.encode_batch([text[:limit] for text in texts])
        return [
            Encoding(
                token_ids=np.asarray(encoding.ids[:max_length], dtype=np.int32),
                offsets=np.asarray(encoding.offsets[:max_length], dtype=np.int32).reshape(-1, 2),
                truncated=len(encoding.ids) > max_length or len(text) > limit,
            )
            for encoding, text in zip(encodings, texts, strict=True)
        ]

    @torch.inference_mode()
    def hidden_states(self, token_ids: Tensor) -> Tensor:
        """Last hidden states, (batch, seq) -> (batch, seq, hidden).

        Rows may be padded on the right with any token: a causal model never lets a token see a later one,
        so no mask is needed and the fast attention path stays open.
        """
        return self.network.hidden_states(token_ids)

    @torch.inference_mode()
    def layer_states(self, token_ids: Tensor, layers: Sequence[int]) -> list[Tensor]:
        """Hidden states of each of some layers, (batch, seq) -> (batch, seq, hidden) each; else as `hidden_states`."""
        if list(layers) == [self.network.layer_count]:
            return [self.network.hidden_states(token_ids)]
        return self.network.layer_states(token_ids, layers)

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        """Vocabulary projection of hidden states, (rows, hidden) -> (rows, vocab)."""
        return self.network.project(hidden)

    @torch.inference_mode()
    def _probe(self) -> None:
        """Refuse weights that compute no numbers; what else can be wrong with a model, its class asks itself."""
        name = f"{self.name} ({self.network.model_type})"
        ids = torch.arange(PROBE_TOKENS, device=self.device)[None] * 31 % self.network.vocab_size  # (1, seq)
        hidden = self.hidden_states(ids)[0]
        if not (hidden.isfinite().all() and self.logits(hidden).isfinite().all()):
            raise BackboneError(
                f"backbone {name} computes infinities or NaN in {self.dtype}; its weights are damaged, or it "
                "needs another dtype"
            )
        if isinstance(self.network, TransformersLM):
            self.network.check(name, ids)


def _network(files: BackboneFiles, device: str, dtype: torch.dtype) -> CausalLM:
    """The fastest way to compute a model."""
    kind = Int8Llama if files.int8 else Llama
    found = kind.load(files.path, dtype) if device == "cpu" else None
    if found is None and files.int8:
        raise BackboneError(
            f"{files.name}: products of eight-bit integers are for plain Llamas on a processor; leave {INT8} out"
        )
    return found or TransformersLM.load(files.path, device, dtype)


def native_dtype(device: str) -> torch.dtype:
    """bfloat16 where the processor multiplies it natively, float32 elsewhere."""
    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32


def load_tokenizer(path: Path) -> Tokenizer:
    """The fast tokenizer, from tokenizer.json or converted by transformers from an older format.

    It neither cuts nor pads, and reads special tokens written in a text as plain text.

    Raises:
        BackboneError: when there is none, or it cannot be read.
    """
    if (path / "tokenizer.json").is_file():
        try:
            tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
        except Exception as error:  # the library raises no narrower one
            raise BackboneError(f"cannot read {path / 'tokenizer.json'}: {error}; fetch the model again") from error
    else:
        import transformers

        try:
            slow = transformers.AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
            tokenizer = slow.backend_tokenizer
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise BackboneError(f"no fast tokenizer in {path}: {error}; add the model's tokenizer.json") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer
