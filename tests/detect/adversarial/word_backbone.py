"""A tiny language model whose tokens are whole words, some of which are alike because the test says so."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig

from features.backbone import Backbone
from tests.features.test_backbone import load

ALIKE = [
    ("big", "large", "small", "enormous"),
    ("dog", "hound", "dogs"),
    ("quickly", "rapidly"),
    ("film", "movie"),
    ("Big", "Large"),
    ("walked", "strolled", "walk"),
]
OTHERS = (
    "The",
    "A",
    "a",
    "an",
    "the",
    "of",
    "in",
    "and",
    "saw",
    "it",
    "was",
    "old",
    "tree",
    ".",
    ",",
    "ran",
    "home",
    "London",
    "movies",
)
WORDS = ["[UNK]", *(word for group in ALIKE for word in group), *OTHERS]
TEXT = "The big dog walked home quickly. It was a big film, and the dog saw the tree."


def word_backbone(path: Path) -> Backbone:
    """A model of random weights but for its vocabulary projection, where words of a group are nearly the same."""
    vocabulary = {word if word in "[UNK].," else f"▁{word}": place for place, word in enumerate(WORDS)}
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=128,
        bos_token_id=0,
        eos_token_id=0,
        initializer_range=0.3,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(path)
    weights = load_file(path / "model.safetensors")
    for group in ALIKE:
        first = weights["lm_head.weight"][WORDS.index(group[0])]
        for step, word in enumerate(group[1:], 1):
            weights["lm_head.weight"][WORDS.index(word)] = first + 0.02 * step * torch.linspace(-1, 1, 32)
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.save(str(path / "tokenizer.json"))
    return load(path)
