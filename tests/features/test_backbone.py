"""Backbones of three architectures against a float64 twin, and what is refused."""

import json
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from features.backbone import CHARACTERS_PER_TOKEN, Backbone, Fingerprint, native_dtype
from features.errors import BackboneError
from features.extractor import Extractor
from features.registry import BackboneFiles
from tests.features.test_metrics import naive_metrics
from tests.features.tiny_models import END_OF_TEXT, Architecture, tiny_tokenizer, write_tiny_model

TEXT = "She wrote to the committee that the results were not yet in: naïve 🙂 texts, and 12 apples."
ARCHITECTURES: tuple[Architecture, ...] = ("llama", "gpt2", "gpt_neox")
SHAPE: dict[str, Any] = {
    "vocab_size": 307,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}


def files_at(path: Path) -> BackboneFiles:
    return BackboneFiles(name="tiny", path=path, weights_id="w", tokenizer_id="t")


def load(path: Path, dtype: torch.dtype = torch.float32) -> Backbone:
    return Backbone.load(files_at(path), device="cpu", dtype=dtype)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def backbone(llama: Path) -> Backbone:
    return load(llama)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_features_agree_with_the_whole_model_in_float64(tmp_path: Path, architecture: Architecture) -> None:
    path = write_tiny_model(tmp_path, architecture)
    backbone = load(path)
    extractor = Extractor(backbone)
    encoding = extractor.encode([TEXT])[0]
    found = extractor.extract(["key"], [encoding])[0]

    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).eval()
    with torch.no_grad():
        output = model(torch.from_numpy(encoding.token_ids).long()[None], output_hidden_states=True)
    ids = encoding.token_ids.tolist()
    logits = output.logits[0].tolist()
    expected = [naive_metrics(logits[i], ids[i + 1]) for i in range(len(ids) - 1)]
    # 1e-4: two layers in float32 against float64; the largest difference measured was 2e-5.
    assert_close(torch.from_numpy(found.metrics), torch.tensor(expected), rtol=0, atol=1e-4)
    # Of float16's 11 bits: half a step is 2^-11 of the number.
    last = output.hidden_states[-1][0].float()
    assert_close(torch.from_numpy(found.hidden).float(), last, rtol=2**-11, atol=1e-4)


def test_a_backbone_is_frozen_and_in_evaluation_mode(backbone: Backbone) -> None:
    assert not backbone.model.training
    assert not any(parameter.requires_grad for parameter in backbone.model.parameters())
    assert backbone.hidden_size == 32
    assert backbone.max_positions == 512


def test_a_model_that_looks_ahead_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    for name in ("BertForMaskedLM", "BertLMHeadModel"):
        config = transformers.BertConfig(**SHAPE, is_decoder=False)
        path = save(getattr(transformers, name)(config), tmp_path / name)
        with pytest.raises(BackboneError, match=r"backbone tiny \(bert\) is not causal"):
            load(path)


def test_a_model_that_scales_its_logits_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = save(transformers.CohereForCausalLM(transformers.CohereConfig(**SHAPE)), tmp_path)
    with pytest.raises(BackboneError, match=r"tiny \(cohere\) changes its logits after the vocabulary"):
        load(path)


def test_a_model_that_caps_its_logits_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.Gemma2Config(
        **SHAPE, num_key_value_heads=2, head_dim=16, final_logit_softcapping=5.0, initializer_range=0.3
    )
    path = save(transformers.Gemma2ForCausalLM(config), tmp_path)
    with pytest.raises(BackboneError, match=r"tiny \(gemma2\) changes its logits .*soft-capping"):
        load(path)


def test_a_model_without_its_head_is_refused_and_not_given_a_random_one(tmp_path: Path, llama: Path) -> None:
    path = Path(shutil.copytree(llama, tmp_path / "model"))
    weights = load_file(path / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackboneError, match=r"lacks 1 weights of a llama .* lm_head.weight among them"):
        load(path)


def test_weights_that_are_not_numbers_are_refused(tmp_path: Path, llama: Path) -> None:
    path = Path(shutil.copytree(llama, tmp_path / "model"))
    weights = load_file(path / "model.safetensors")
    weights["model.norm.weight"][3] = torch.nan
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackboneError, match=r"tiny \(llama\) computes infinities or NaN in torch.float32"):
        load(path)


def test_files_that_are_no_model_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "no-such-type"}))
    with pytest.raises(BackboneError, match=f"{tmp_path} does not load as a causal language model"):
        load(tmp_path)


def test_a_model_without_a_tokenizer_is_refused(tmp_path: Path, llama: Path) -> None:
    path = Path(shutil.copytree(llama, tmp_path / "model"))
    for file in path.glob("*token*"):
        file.unlink()
    with pytest.raises(BackboneError, match=f"no fast tokenizer in {path}"):
        load(path)


def test_a_configuration_with_a_value_that_cannot_be_is_refused(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "gpt2", "gpt2", hidden_size=40)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"n_embd": "many"}))
    with pytest.raises(BackboneError, match=f"{path} does not load as a causal language model: .*n_embd"):
        load(path)


@pytest.mark.parametrize("content", ["", "{}", "{"])
def test_a_damaged_tokenizer_is_named(tmp_path: Path, llama: Path, content: str) -> None:
    path = Path(shutil.copytree(llama, tmp_path / "model"))
    (path / "tokenizer.json").write_text(content)
    with pytest.raises(BackboneError, match=f"cannot read {path / 'tokenizer.json'}: .*fetch the model again"):
        load(path)


def test_special_tokens_in_a_text_are_read_as_plain_text(backbone: Backbone) -> None:
    text = f"one{END_OF_TEXT}two"
    special = backbone.tokenizer.token_to_id(END_OF_TEXT)
    encoding = backbone.encode([text], 512)[0]
    assert special not in encoding.token_ids
    assert covered(text, encoding.offsets) == text


def test_texts_of_other_layout_read_the_same(backbone: Backbone) -> None:
    plain, laid_out = backbone.encode(["one two three", "\none  two\n\n\tthree "], 512)
    assert np.array_equal(plain.token_ids, laid_out.token_ids)
    assert np.array_equal(plain.offsets, laid_out.offsets)


def covered(text: str, offsets: np.ndarray) -> str:
    return "".join(text[start:end] for start, end in offsets.tolist())


def test_offsets_point_at_the_characters_of_each_token(backbone: Backbone) -> None:
    text = "He counted: naïve, one two."
    encoding = backbone.encode([text], 512)[0]
    assert encoding.offsets.dtype == np.int32
    for token_id, (start, end) in zip(encoding.token_ids.tolist(), encoding.offsets.tolist(), strict=True):
        written = tiny_tokenizer().decode([token_id])
        if "�" not in written:  # not a part of a character of several bytes
            assert text[start:end] == written
        else:
            assert text[start:end] == "ï"


@pytest.mark.parametrize("text", ["", "a"])
def test_texts_of_no_or_one_token_keep_the_shapes(backbone: Backbone, text: str) -> None:
    encoding = backbone.encode([text], 512)[0]
    assert encoding.token_ids.shape == (len(text),)
    assert encoding.offsets.shape == (len(text), 2)
    assert not encoding.truncated


def test_a_text_is_truncated_when_it_goes_on_after_the_last_token(backbone: Backbone) -> None:
    whole = backbone.encode([TEXT], 512)[0]
    n = len(whole.token_ids)
    exact, cut = backbone.encode([TEXT], n)[0], backbone.encode([TEXT], n - 1)[0]
    assert (whole.truncated, exact.truncated, cut.truncated) == (False, False, True)
    assert np.array_equal(exact.token_ids, whole.token_ids)
    assert np.array_equal(cut.token_ids, whole.token_ids[:-1])
    assert np.array_equal(cut.offsets, whole.offsets[:-1])


def test_a_text_cut_by_its_characters_is_truncated_however_few_tokens_are_left(llama: Path) -> None:
    backbone = load(llama)
    long_token = "x" * (4 * CHARACTERS_PER_TOKEN)
    backbone.tokenizer.add_tokens([long_token])
    whole, cut = backbone.encode([long_token * 4, long_token * 4 + "b"], 16)
    assert (len(whole.token_ids), whole.truncated) == (4, False)
    assert (len(cut.token_ids), cut.truncated) == (4, True)


def test_of_a_text_of_ten_megabytes_only_the_first_characters_are_tokenised(llama: Path) -> None:
    backbone = load(llama)
    text = "word " * 2_000_000
    recorded = RecordingTokenizer(backbone.tokenizer)
    backbone.tokenizer = recorded  # type: ignore[assignment]  # "RecordingTokenizer": has what encode calls
    encoding = backbone.encode([text], 512)[0]
    assert recorded.characters == [512 * CHARACTERS_PER_TOKEN]
    assert len(encoding.token_ids) == 512
    assert encoding.truncated


class RecordingTokenizer:
    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.characters: list[int] = []

    def encode_batch(self, texts: list[str]) -> Any:
        self.characters += map(len, texts)
        return self.tokenizer.encode_batch(texts)


def test_a_token_does_not_see_later_ones(backbone: Backbone) -> None:
    ids = torch.arange(1, 12)[None]
    assert_close(backbone.hidden_states(ids)[:, :7], backbone.hidden_states(ids[:, :7]))


def test_every_field_of_a_fingerprint_changes_its_digest() -> None:
    base = Fingerprint(weights_id="w", tokenizer_id="t", dtype="bfloat16", max_length=512, metric_version=1)
    others = [
        replace(base, weights_id="v"),
        replace(base, tokenizer_id="s"),
        replace(base, dtype="float32"),
        replace(base, max_length=256),
        replace(base, metric_version=2),
        replace(base, text_version=2),
        replace(base, layers=(1, 2)),
        replace(base, observer="v"),
    ]
    assert len({fingerprint.digest for fingerprint in [base, *others]}) == 1 + len(fields(base))
    assert base.digest == replace(base).digest
    assert len(base.digest) == 16


def test_the_digest_of_a_default_extraction_is_the_one_it_has_always_had() -> None:
    # Computed by the version before layers and observers; existing caches are found by it.
    assert Fingerprint(weights_id="w", tokenizer_id="t", dtype="bfloat16", max_length=512).digest == "613a08b3524d9a7c"


def test_a_fingerprint_names_what_was_loaded(backbone: Backbone, llama: Path) -> None:
    assert backbone.fingerprint(128).to_dict() == {
        "weights_id": "w",
        "tokenizer_id": "t",
        "dtype": "float32",
        "max_length": 128,
        "metric_version": 1,
        "text_version": 1,
    }
    assert load(llama, torch.bfloat16).fingerprint(128).dtype == "bfloat16"


def test_a_length_beyond_the_positions_of_the_model_is_refused(backbone: Backbone) -> None:
    backbone.fingerprint(512)
    with pytest.raises(BackboneError, match=r"--max-length 513 is more than backbone tiny can read: 512"):
        Extractor(backbone, max_length=513)


def test_the_native_dtype_is_one_that_a_processor_has() -> None:
    assert native_dtype("cpu") in (torch.bfloat16, torch.float32)


def save(model: Any, path: Path) -> Path:
    model.save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path
