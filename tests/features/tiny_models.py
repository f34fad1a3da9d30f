"""Randomly initialised language models of a few thousand parameters, written as real model directories."""

from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
)

Architecture = Literal["llama", "gpt2", "gpt_neox"]

END_OF_TEXT = "<|endoftext|>"
MAX_POSITIONS = 512
SENTENCES = (
    "The river ran past the old mill and under the stone bridge.",
    "She wrote to the committee that the results were not yet in.",
    "In conclusion, the language model predicts the next token of the text.",
    "He counted the apples in the basket: one, two, three, and then there were none.",
    "It is important to note that the weather in the north is colder than in the south.",
)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of about 300 tokens: it encodes any text, and decodes it back."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained_tokenizer()),
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
    )


@cache
def _trained_tokenizer() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=307,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return str(tokenizer.to_str())


def write_tiny_model(
    directory: Path, architecture: Architecture = "llama", *, seed: int = 0, hidden_size: int = 32
) -> Path:
    """Write config.json, model.safetensors (float32) and the tokenizer's files; returns `directory`.

    `hidden_size` is a multiple of 8 (two heads of an even size that is a multiple of four). The caller's
    random state is left as it was.
    """
    config = _config(architecture, vocab_size=len(tiny_tokenizer()), hidden_size=hidden_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(directory)
    tiny_tokenizer().save_pretrained(directory)
    return directory


def _config(architecture: Architecture, *, vocab_size: int, hidden_size: int) -> PreTrainedConfig:
    # A wider initialisation than the usual 0.02: next-token distributions that are far from uniform.
    if architecture == "gpt2":
        return GPT2Config(
            vocab_size=vocab_size,
            n_positions=MAX_POSITIONS,
            n_embd=hidden_size,
            n_layer=2,
            n_head=2,
            bos_token_id=0,
            eos_token_id=0,
            initializer_range=0.3,
        )
    shape: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "intermediate_size": 2 * hidden_size,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": MAX_POSITIONS,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "initializer_range": 0.3,
    }
    return LlamaConfig(**shape) if architecture == "llama" else GPTNeoXConfig(**shape)
