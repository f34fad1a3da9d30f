"""Eight-bit products against the same weights in float64, and what a backbone in eight-bit integers says of itself."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from features import int8
from features.backbone import Backbone
from features.errors import BackboneError
from features.int8 import Int8Linear, Int8Llama
from features.llama import Llama
from features.observer import load_observer
from features.registry import lasting_name, pull, resolve
from tests.features.tiny_models import write_tiny_model

pytestmark = pytest.mark.skipif(not torch.cpu._is_vnni_supported(), reason="no products of eight-bit integers here")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("int8")
    return write_tiny_model(path, hidden_size=24, num_attention_heads=6, num_key_value_heads=2, head_dim=10)


def draw(*shape: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_rounded_map_is_the_exact_one_within_half_a_level() -> None:
    weight, levels, scales = draw(7, 24), torch.randint(0, 256, (5, 24), dtype=torch.uint8), draw(5, 1).abs()
    found = Int8Linear(weight)(levels, scales, torch.float32)
    inputs = (levels.double() - 128) * scales.double()
    half_a_level = weight.double().abs().amax(1) / 254
    assert ((found - inputs @ weight.double().T).abs() <= inputs.abs().sum(1, keepdim=True) * half_a_level + 1e-4).all()


def test_weights_on_the_levels_give_exact_products() -> None:
    weight = torch.randint(-127, 128, (7, 24), generator=torch.Generator().manual_seed(2)).float()
    weight[:, 0] = 127  # the largest of each output: a level is 1
    levels = torch.randint(0, 256, (5, 24), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    found = Int8Linear(weight)(levels, torch.ones(5, 1), torch.float32)
    assert_close(found.double(), (levels.double() - 128) @ weight.double().T, rtol=1e-6, atol=0)


def test_levels_are_the_norm_within_half_a_level(directory: Path) -> None:
    model = Int8Llama.load(directory, torch.float32)
    assert model is not None
    x, weight = draw(6, 24) * 5, draw(24, seed=4)
    levels, scales = model._levels(x, weight)
    exact = x.double() * (x.double().square().mean(-1, keepdim=True) + model._epsilon).rsqrt() * weight.double()
    assert levels.dtype == torch.uint8
    assert ((levels.double() - 128) * scales.double() - exact).abs().max() <= 0.5001 * scales.max()
    assert (levels.int() - 128).abs().amax(-1).tolist() == [127] * 6  # every row uses all levels


@pytest.mark.parametrize("shape", [(1, 1), (3, 40), (2, 300)])
def test_hidden_states_stay_near_the_exact_ones(directory: Path, shape: tuple[int, int]) -> None:
    exact, rounded = Llama.load(directory, torch.float64), Int8Llama.load(directory, torch.float32)
    assert exact is not None
    assert rounded is not None
    ids = torch.randint(0, exact.vocab_size, shape, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected, found = exact.hidden_states(ids), rounded.hidden_states(ids)
    # Up to 0.042 measured, where rows are 24 numbers and roundings hardly average out; without rounding 1e-7.
    error = (found - expected).norm() / expected.norm()
    assert 1e-5 < error < 0.08


def test_a_row_does_not_depend_on_others(directory: Path) -> None:
    model = Int8Llama.load(directory, torch.float32)
    assert model is not None
    ids = torch.randint(0, model.vocab_size, (4, 30), generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        assert_close(model.hidden_states(ids)[2:3], model.hidden_states(ids[2:3]), rtol=0, atol=1e-5)


def test_moving_size_into_weights_makes_large_channels_harmless(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file, save_file

    large = tmp_path / "large"
    large.mkdir()
    (large / "config.json").write_bytes((directory / "config.json").read_bytes())
    weights = load_file(directory / "model.safetensors")
    for name, weight in weights.items():
        if name.endswith("layernorm.weight"):
            weight[3] *= 300
        if name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight", "gate_proj.weight", "up_proj.weight")):
            weight[:, 3] /= 300
    save_file(weights, large / "model.safetensors", metadata={"format": "pt"})
    exact = Llama.load(large, torch.float64)
    assert exact is not None
    ids = torch.randint(0, exact.vocab_size, (2, 60), generator=torch.Generator().manual_seed(6))

    def error() -> float:
        rounded = Int8Llama.load(large, torch.float32)
        assert rounded is not None
        with torch.inference_mode():
            expected = exact.hidden_states(ids)
            return float((rounded.hidden_states(ids) - expected).norm() / expected.norm())

    smooth = error()
    monkeypatch.setattr(int8, "_share", lambda largest, *weights: torch.ones_like(largest))
    assert smooth < 0.1  # 0.045 measured
    assert error() > 0.5  # 1.16


def test_its_name_asks_for_it_and_its_features_say_so(directory: Path) -> None:
    files = resolve(f"{directory}:int8")
    assert files == replace(resolve(str(directory)), name=f"{directory}:int8", int8=True)
    backbone, plain = Backbone.load(files), Backbone.load(resolve(str(directory)))
    assert isinstance(backbone.network, Int8Llama)
    assert not isinstance(plain.network, Int8Llama)
    fingerprint, other = backbone.fingerprint(64), plain.fingerprint(64)
    assert fingerprint.dtype == f"int8+{other.dtype}"
    assert fingerprint.digest != other.digest
    assert fingerprint.weights_id == other.weights_id
    assert pull(f"{directory}:int8") == plain.files


def test_a_path_is_made_absolute_and_keeps_its_ending(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(directory.parent)
    assert lasting_name(f"{directory.name}:int8") == f"{directory}:int8"
    assert lasting_name("smollm2-135m:int8") == "smollm2-135m:int8"


def test_an_early_exit_of_it_is_an_observer(directory: Path) -> None:
    backbone = Backbone.load(resolve(f"{directory}:int8"))
    assert load_observer("@1", backbone).layer == 1


def test_other_architectures_are_refused(tmp_path: Path) -> None:
    other = write_tiny_model(tmp_path / "gpt2", "gpt2")
    with pytest.raises(BackboneError, match="plain Llamas on a processor; leave :int8 out"):
        Backbone.load(resolve(f"{other}:int8"))


def test_a_processor_without_such_products_is_refused(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    with pytest.raises(BackboneError, match=r"no products of eight-bit integers \(VNNI\)"):
        Backbone.load(resolve(f"{directory}:int8"))
