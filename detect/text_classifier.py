"""A transformer that reads texts and gives one logit: tokenizer, model and head, loading and scoring.

Shape legend: batch = texts, seq = tokens of the longest.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tokenizers import Encoding, Tokenizer
from torch import Tensor, nn

from detect.pawn_scoring import Precision
from detect.text_reading import Reading
from features.backbone import CHARACTERS_PER_TOKEN, native_dtype
from features.documents import MIN_TOKENS, canonical_text
from features.errors import DetectorError, UsageError
from features.extractor import batch_by_length
from features.registry import INT8, BackboneFiles, lasting_name

DEFAULT_MAX_LENGTH = 512
"""The same as of the features; most encoders read no more."""

TOKEN_BUDGET = 2_048
"""Padded tokens in a batch that is only scored."""


@dataclass(eq=False)
class TextClassifier:
    """A sequence classifier of transformers with one output, and all it takes to use it on texts.

    Attributes:
        model: gives `logits` (batch, 1) of `input_ids` and `attention_mask`; higher is more machine-like.
        tokenizer: of the model.
        max_length: tokens of a text that are read, special ones counted.
        pad_id: the token that fills rows up on the right; no text is ever encoded to it.
        precision: of the matrix products.
    """

    model: Any  # an nn.Module with more attributes than that declares
    tokenizer: Tokenizer
    max_length: int
    pad_id: int
    precision: Precision

    @property
    def device(self) -> torch.device:
        """Where the model lies."""
        device: torch.device = next(self.model.parameters()).device
        return device

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that learn, by name, in the model's order."""
        return {name: parameter for name, parameter in self.model.named_parameters() if parameter.requires_grad}

    def encode(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Token ids of the canonical form of texts, each (n,) int32, cut to `max_length`.

        Raises:
            ValueError: for a text without a token.
        """
        tokens = [np.asarray(encoding.ids, dtype=np.int32) for encoding, _ in self._encodings(texts)]
        if empty := [index for index, ids in enumerate(tokens) if not len(ids)]:
            raise ValueError(f"texts {empty} have no token; a text needs at least 1")
        return tokens

    def readings(self, texts: Sequence[str]) -> list[Reading]:
        """What is read of each text; one of fewer than `MIN_TOKENS` tokens is too short."""
        return [
            Reading(len(encoding.ids), cut or bool(encoding.overflowing), len(encoding.ids) < MIN_TOKENS)
            for encoding, cut in self._encodings(texts)
        ]

    def _encodings(self, texts: Sequence[str]) -> list[tuple[Encoding, bool]]:
        """Each text to `max_length`, and whether it was cut before it was tokenised."""
        self.tokenizer.enable_truncation(self.max_length)
        limit = self.max_length * CHARACTERS_PER_TOKEN  # so that a text of megabytes costs no more than a long one
        canonical = [canonical_text(text) for text in texts]
        encodings = self.tokenizer.encode_batch([text[:limit] for text in canonical])
        return [(encoding, len(text) > limit) for encoding, text in zip(encodings, canonical, strict=True)]

    def collate(self, tokens: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        """Token ids and attention mask of a batch, each (batch, seq), padded on the right, on the model's device."""
        seq = max(len(ids) for ids in tokens)
        input_ids = torch.full((len(tokens), seq), self.pad_id)
        attention_mask = torch.zeros_like(input_ids)
        for row, ids in enumerate(tokens):
            input_ids[row, : len(ids)] = torch.from_numpy(ids)
            attention_mask[row, : len(ids)] = 1
        return input_ids.to(self.device), attention_mask.to(self.device)

    def products(self) -> torch.autocast:
        """The context in which matrix products have their precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def logits(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(batch, seq), (batch, seq) -> (batch,) float32."""
        with self.products():
            found: Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits  # (batch, 1)
        return found.float().squeeze(-1)

    @torch.inference_mode()
    def scores(self, tokens: Sequence[np.ndarray], token_budget: int = TOKEN_BUDGET) -> np.ndarray:
        """Logits without dropout of encoded texts, (n,) float64, in the order given."""
        scores = np.empty(len(tokens), dtype=np.float64)
        was_training = self.model.training
        self.model.eval()
        try:
            for indices in batch_by_length([len(ids) for ids in tokens], token_budget):
                logits = self.logits(*self.collate([tokens[index] for index in indices]))
                scores[indices] = logits.double().cpu().numpy()
        finally:
            self.model.train(was_training)
        return scores


def native_precision(device: str) -> Precision:
    """bfloat16 where the device multiplies it natively."""
    return "bfloat16" if native_dtype(device) is torch.bfloat16 else "float32"


def base_record(files: BackboneFiles) -> dict[str, str]:
    """What a detector keeps of the model that it was made from; a path is kept whole."""
    return {"name": lasting_name(files.name), "weights_id": files.weights_id, "tokenizer_id": files.tokenizer_id}


def pretrained_classifier(files: BackboneFiles, *, dtype: torch.dtype, seed: int) -> Any:
    """A pre-trained model with a new head of one output, drawn from a seed, on the CPU.

    Raises:
        DetectorError: when the model does not load, or lacks weights that are not of a head.
        UsageError: when its products were asked for in eight-bit integers, which nothing can be learnt through.
    """
    if files.int8:
        raise UsageError(f"{files.name} is to be fine-tuned, in its own number format: leave {INT8} out of --base")
    import transformers  # 2 s to import: only when a model is really loaded

    path = files.path
    with _silent(transformers), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            config = transformers.AutoConfig.from_pretrained(
                path, num_labels=1, local_files_only=True, trust_remote_code=False
            )
            # With dropout of its weights, attention falls back to a path of half the speed on a processor.
            if hasattr(config, "attention_probs_dropout_prob"):
                config.attention_probs_dropout_prob = 0.0
            model, info = transformers.AutoModelForSequenceClassification.from_pretrained(
                path,
                config=config,
                dtype=dtype,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise DetectorError(
                f"{files.name} does not load as a text classifier: {str(error).strip().splitlines()[0]}; expected a "
                "model that transformers can put a classification head on"
            ) from error
    body = f"{model.base_model_prefix}."
    # A pooler belongs to the head: models that were trained without one ship without it.
    lacking = sorted(name for name in info["missing_keys"] if name.startswith(body) and ".pooler." not in name)
    if lacking:
        raise DetectorError(
            f"{files.name} lacks {len(lacking)} weights of a {model.config.model_type}, {lacking[0]} among them; "
            "name a whole pre-trained model"
        )
    return model


def untrained_classifier(config: dict[str, Any]) -> Any:
    """A text classifier of a configuration, its weights yet to be loaded, on the CPU.

    Raises:
        KeyError, TypeError, ValueError: when transformers knows no such model.
    """
    import transformers

    with _silent(transformers), torch.random.fork_rng(devices=[]):
        settings = transformers.AutoConfig.for_model(**config)
        return transformers.AutoModelForSequenceClassification.from_config(
            settings, dtype=torch.float32, trust_remote_code=False
        )


def plain_tokenizer(tokenizer: Tokenizer) -> Tokenizer:
    """A tokenizer that does not pad, and reads special tokens written in a text as plain text."""
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def build_classifier(
    model: Any,
    tokenizer: Tokenizer,
    *,
    max_length: int,
    precision: Precision | None,
    device: str | None,
) -> TextClassifier:
    """Put a model to work.

    Args:
        model: a sequence classifier of transformers.
        tokenizer: its own.
        max_length: tokens of a text that are read.
        precision: default: bfloat16 where the device multiplies it natively.
        device: "cpu" or "cuda"; default: cuda when there is one.

    Raises:
        DetectorError: when the model cannot read that many tokens.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    limit = _most_tokens(model)
    if limit is not None and max_length > limit:
        raise DetectorError(
            f"max_length {max_length} is more than this {model.config.model_type} can read: {limit} tokens; ask for at "
            "most that"
        )
    config = model.config
    if config.pad_token_id is None:  # a decoder that was never padded: what ends a text is no part of any
        end = config.eos_token_id
        config.pad_token_id = end[0] if isinstance(end, list) else end or 0
    return TextClassifier(
        model=model.to(device).eval(),
        tokenizer=tokenizer,
        max_length=max_length,
        pad_id=config.pad_token_id,
        precision=precision or native_precision(device),
    )


def _most_tokens(model: Any) -> int | None:
    """Longest input in tokens, where the architecture has a limit."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            # RoBERTa and its kin count positions from the one after the padding token's.
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    limit = getattr(model.config, "max_position_embeddings", None)
    return int(limit) if isinstance(limit, int) and limit > 0 else None


@contextlib.contextmanager
def _silent(transformers: Any) -> Iterator[None]:
    """Keep transformers' loading report and progress bar off the terminal."""
    logging = transformers.utils.logging
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
