from pathlib import Path

import peft
import pytest
import torch
from torch.testing import assert_close

from detect.adversarial import policy as module
from detect.adversarial.policy import Policy
from detect.lora import LoraShape
from features.errors import BackboneError
from tests.detect.adversarial.generators import tiny_generator
from tests.features.tiny_models import Architecture

TEXTS = [((5, 7, 11), (13, 17)), ((19, 23), (29, 31, 37, 41, 43))]


@pytest.fixture(autouse=True)
def _float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed forms are checked without the rounding of bfloat16."""
    monkeypatch.setattr(module, "native_dtype", lambda device: torch.float32)


def make(tmp_path: Path, architecture: Architecture = "llama", shape: LoraShape = module.GENERATOR_LORA) -> Policy:
    return Policy.load(tiny_generator(tmp_path, architecture), shape, device="cpu")


def shake(policy: Policy) -> None:
    """Make the adapters do something."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)


def logits(model: torch.nn.Module) -> torch.Tensor:
    ids = torch.arange(2, 14)[None] * 7
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=ids).logits
    return found


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox"])
def test_the_snapshot_writes_as_the_adapted_model_does(architecture: Architecture, tmp_path: Path):
    # gpt2 keeps its matrices transposed.
    policy = make(tmp_path, architecture)
    untuned = logits(policy.snapshot())
    assert_close(logits(policy.adapted), untuned)
    shake(policy)
    tuned = logits(policy.snapshot())
    assert_close(logits(policy.adapted.eval()), tuned, rtol=1e-4, atol=1e-4)  # sums in another order
    assert (tuned - untuned).abs().max() > 0.1


def test_snapshots_do_not_add_up(tmp_path: Path):
    policy = make(tmp_path)
    shake(policy)
    first = logits(policy.snapshot())
    assert torch.equal(logits(policy.snapshot()), first)


def test_only_adapters_learn(tmp_path: Path):
    policy = make(tmp_path)
    learning = {name for name, value in policy.adapted.named_parameters() if value.requires_grad}
    assert learning
    assert all("lora_" in name for name in learning)
    assert not any("lm_head" in name for name in learning)


def test_log_probs_are_the_means_over_the_continuation(tmp_path: Path):
    policy = make(tmp_path)
    found = policy.log_probs(TEXTS)
    expected = []
    for prompt, rest in TEXTS:
        ids = [*prompt, *rest]
        with torch.no_grad():
            table = policy.snapshot()(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
        places = range(len(prompt), len(ids))
        expected.append(sum(float(table[place - 1, ids[place]]) for place in places) / len(rest))
    assert_close(found.detach().double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-5, atol=1e-5)


def test_padding_does_not_move_a_log_prob(tmp_path: Path):
    policy = make(tmp_path)
    together = policy.log_probs(TEXTS).detach()
    alone = torch.cat([policy.log_probs([text]).detach() for text in TEXTS])
    assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_a_text_without_prompt_or_continuation_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"texts \[1\] have an empty prompt or continuation"):
        make(tmp_path).log_probs([((1,), (2,)), ((), (3,))])


def test_adapters_come_back_from_disk(tmp_path: Path):
    policy = make(tmp_path)
    shake(policy)
    policy.save(tmp_path / "adapter")
    assert sorted(path.name for path in (tmp_path / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    again = Policy.load(policy.files, device="cpu")
    again.restore(tmp_path / "adapter")
    assert torch.equal(logits(again.snapshot()), logits(policy.snapshot()))


def test_peft_reads_the_adapters(tmp_path: Path):
    policy = make(tmp_path)
    shake(policy)
    policy.save(tmp_path / "adapter")
    config = peft.PeftConfig.from_pretrained(tmp_path / "adapter")
    assert config.base_model_name_or_path == policy.files.name
    assert config.r == 16


def test_adapters_that_are_not_whole_or_of_another_shape_are_refused(tmp_path: Path):
    policy = make(tmp_path)
    with pytest.raises(BackboneError, match="holds no adapters"):
        policy.restore(tmp_path / "nowhere")
    policy.save(tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_model.safetensors").write_bytes(b"{}")
    with pytest.raises(BackboneError, match="holds no adapters"):
        policy.restore(tmp_path / "adapter")
    Policy.load(policy.files, LoraShape(rank=3, alpha=6, targets="all-linear"), device="cpu").save(tmp_path / "small")
    with pytest.raises(BackboneError, match=r"adapters of another shape \(.*lora_A"):
        policy.restore(tmp_path / "small")


def test_layers_that_the_model_has_not_are_an_error(tmp_path: Path):
    with pytest.raises(BackboneError, match=r"no LoRA adapters for .*name linear layers"):
        make(tmp_path, shape=LoraShape(targets=("no_such_layer",)))
