import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from features.backbone import Backbone
from features.causal_lm import TransformersLM
from features.llama import Llama
from features.registry import BackboneFiles
from tests.features.tiny_models import write_tiny_model


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Query heads share key heads, and heads x their size is not the hidden size."""
    path = tmp_path_factory.mktemp("llama")
    return write_tiny_model(path, hidden_size=24, num_attention_heads=6, num_key_value_heads=2, head_dim=10)


def changed(directory: Path, to: Path, **settings: object) -> Path:
    """A copy of a model directory with other settings in its configuration; None removes one."""
    config = json.loads((directory / "config.json").read_text()) | settings
    to.mkdir()
    (to / "config.json").write_text(json.dumps({name: value for name, value in config.items() if value is not None}))
    (to / "model.safetensors").write_bytes((directory / "model.safetensors").read_bytes())
    return to


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (2, 300)])
def test_it_computes_what_transformers_computes(directory: Path, shape: tuple[int, int]) -> None:
    ours = Llama.load(directory, torch.float32)
    theirs = TransformersLM.load(directory, "cpu", torch.float64)
    assert ours is not None
    ids = torch.randint(0, ours.vocab_size, shape, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        found, expected = ours.hidden_states(ids), theirs.hidden_states(ids)
        # The largest difference measured was 4e-6.
        assert_close(found.double(), expected, rtol=0, atol=5e-5)
        assert_close(ours.project(found[0]).double(), theirs.project(expected[0]), rtol=0, atol=5e-4)
    for field in ("model_type", "hidden_size", "vocab_size", "max_positions"):
        assert getattr(ours, field) == getattr(theirs, field), field


def test_a_projection_tied_to_the_embedding_is_read_from_there(directory: Path, tmp_path: Path) -> None:
    tied = changed(directory, tmp_path / "tied", tie_word_embeddings=True)
    weights = load_file(tied / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, tied / "model.safetensors", metadata={"format": "pt"})
    model = Llama.load(tied, torch.float32)
    assert model is not None
    assert_close(model.project(torch.eye(24)), weights["model.embed_tokens.weight"].T)


def test_a_configuration_of_before_transformers_5_reads_the_same(directory: Path, tmp_path: Path) -> None:
    old = changed(directory, tmp_path / "old", rope_parameters=None, rope_theta=10_000.0)
    new, found = Llama.load(directory, torch.float32), Llama.load(old, torch.float32)
    assert new is not None
    assert found is not None
    ids = torch.arange(40)[None]
    assert_close(found.hidden_states(ids), new.hidden_states(ids), rtol=0, atol=0)


@pytest.mark.parametrize(
    "settings",
    [
        {"model_type": "mistral"},
        {"hidden_act": "gelu"},
        {"attention_bias": True},
        {"mlp_bias": True},
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}},
        {"rope_parameters": None, "rope_theta": 1e4, "rope_scaling": {"type": "linear", "factor": 2.0}},
        {"rope_parameters": None},
        {"num_hidden_layers": 1},
        {"num_hidden_layers": 3},
        {"intermediate_size": 7},
        {"tie_word_embeddings": True},
        {"quantization_config": {"quant_method": "none of ours"}},
        {"rms_norm_eps": None},
    ],
    ids=lambda settings: " ".join(f"{name}={value}" for name, value in settings.items()),
)
def test_what_is_not_a_plain_llama_is_left_to_transformers(
    directory: Path, tmp_path: Path, settings: dict[str, object]
) -> None:
    assert Llama.load(changed(directory, tmp_path / "other", **settings), torch.float32) is None


def test_scaled_rotations_go_through_transformers_and_differ(directory: Path, tmp_path: Path) -> None:
    write_tiny_model(tmp_path / "m")
    scaled = tmp_path / "m"
    config = json.loads((scaled / "config.json").read_text())
    config["rope_parameters"] = {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}
    (scaled / "config.json").write_text(json.dumps(config))
    backbone = Backbone.load(BackboneFiles("scaled", scaled, "w", "t"), device="cpu", dtype=torch.float32)
    assert isinstance(backbone.network, TransformersLM)


def test_the_model_of_transformers_is_there_when_asked_for(directory: Path) -> None:
    backbone = Backbone.load(BackboneFiles("tiny", directory, "w", "t"), device="cpu", dtype=torch.float32)
    assert isinstance(backbone.network, Llama)
    assert backbone.model.config.model_type == "llama"
    assert backbone.model is backbone.model


def test_scoring_with_a_plain_llama_does_not_import_transformers(directory: Path) -> None:
    program = f"""
import sys
from pipelines import Scorer, ScoringSettings
scorer = Scorer.load(ScoringSettings(detector="log-likelihood", backbone={str(directory)!r}))
assert scorer.score(["some words " * 20])["status"].to_list() == ["ok"]
assert "transformers" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
