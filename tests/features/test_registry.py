import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import platformdirs
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from features.errors import BackboneError
from features.registry import (
    REGISTERED,
    describe,
    home,
    resolve,
    verify,
)
from tests.features.tiny_models import tiny_tokenizer, write_tiny_model


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_tiny_model(tmp_path / "model")


@pytest.fixture(autouse=True)
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAWN_HOME", str(tmp_path / "home"))


# Where things are kept


def test_home_is_pawn_home_or_the_users_cache_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAWN_HOME", "~/models")
    assert home() == Path.home() / "models"
    monkeypatch.delenv("PAWN_HOME")
    assert home() == Path(platformdirs.user_cache_dir("pawn-detect"))


# Local directories


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox"])
def test_a_local_directory_resolves_to_itself(tmp_path: Path, architecture: str) -> None:
    path = write_tiny_model(tmp_path / "m", architecture)  # type: ignore[arg-type]  # "str": parametrised
    files = resolve(str(path))
    assert (files.name, files.path) == (str(path), path)
    verify(files)


def test_the_weights_id_is_the_hash_over_names_and_hashes(model: Path) -> None:
    names = ["config.json", "model.safetensors"]
    lines = "".join(f"{name} {sha256((model / name).read_bytes())}\n" for name in names)
    assert resolve(str(model)).weights_id == f"files-sha256:{sha256(lines.encode())}"


def test_a_copy_has_the_same_identities(model: Path, tmp_path: Path) -> None:
    other = resolve(str(write_tiny_model(tmp_path / "copy")))
    files = resolve(str(model))
    assert (files.weights_id, files.tokenizer_id) == (other.weights_id, other.tokenizer_id)


def change_a_weight(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    weights["model.norm.weight"][3] += 1
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})


def change_the_rotary_base(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    config["rope_parameters"]["rope_theta"] = 5.0
    (model / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("change", [change_a_weight, change_the_rotary_base])
def test_what_changes_the_hidden_states_changes_the_weights_id_alone(
    model: Path, change: Callable[[Path], None]
) -> None:
    before = resolve(str(model))
    change(model)
    after = resolve(str(model))
    assert after.weights_id != before.weights_id
    assert after.tokenizer_id == before.tokenizer_id
    with pytest.raises(BackboneError, match=f"expected {before.weights_id}, got {after.weights_id}"):
        verify(before)


def test_another_tokenizer_changes_the_tokenizer_id_alone(model: Path) -> None:
    before = resolve(str(model))
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["<tool>"])
    tokenizer.save_pretrained(model)
    after = resolve(str(model))
    assert after.weights_id == before.weights_id
    assert after.tokenizer_id != before.tokenizer_id


def set_config(model: Path, **values: object) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | values))


def only_pickled_weights(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


def write_index(model: Path, *shards: str) -> None:
    (model / "model.safetensors").rename(model / shards[0])
    index = {"weight_map": {f"tensor{number}": shard for number, shard in enumerate(shards)}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


DAMAGES = {
    r"no config\.json in .*model": lambda m: (m / "config.json").unlink(),
    r"config\.json cannot be read as JSON: Expecting": lambda m: (m / "config.json").write_text("{'a'"),
    r"config\.json: expected a JSON object, got list": lambda m: (m / "config.json").write_text("[]"),
    "expected a causal language model, got model type 't5'": lambda m: set_config(m, model_type="t5"),
    "expected a causal language model, got model type None": lambda m: set_config(m, model_type=None),
    r"'strange' needs code from its author \(auto_map\)": lambda m: set_config(
        m, model_type="strange", auto_map={"AutoModelForCausalLM": "modeling.Strange"}
    ),
    r"holds an adapter \(adapter_config\.json\)": lambda m: (m / "adapter_config.json").write_text("{}"),
    r"expected model\.safetensors or its shards, got none": lambda m: (m / "model.safetensors").unlink(),
    r"its shards, got odd\.safetensors": lambda m: (m / "model.safetensors").rename(m / "odd.safetensors"),
    r"weights in pytorch_model\.bin: pickled weights are never loaded": only_pickled_weights,
    r"b\.safetensors is missing: model\.safetensors\.index\.json names it": lambda m: write_index(
        m, "a.safetensors", "b.safetensors"
    ),
    r"got 'b\.bin': not loaded": lambda m: write_index(m, "a.safetensors", "b.bin"),
    r"got '\.\./b\.safetensors': not loaded": lambda m: write_index(m, "a.safetensors", "../b.safetensors"),
    r"model\.safetensors is not a whole safetensors file: .*": lambda m: cut(m / "model.safetensors", 90_000),
    r"model\.safetensors is not a whole": lambda m: (m / "model.safetensors").write_bytes(b""),
    "no tokenizer in .*model": lambda m: (m / "tokenizer.json").unlink(),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_a_local_directory_that_is_not_a_whole_causal_model_is_refused(model: Path, message: str) -> None:
    DAMAGES[message](model)
    with pytest.raises(BackboneError, match=message):
        resolve(str(model))


def test_an_index_without_a_map_is_refused(model: Path) -> None:
    write_index(model, "a.safetensors")
    (model / "model.safetensors.index.json").write_text('{"weight_map": {}}')
    with pytest.raises(BackboneError, match=r"expected a weight_map of tensors to files, got \{\}"):
        resolve(str(model))


def test_shards_resolve(model: Path) -> None:
    write_index(model, "a.safetensors")
    assert resolve(str(model)).path == model


@pytest.mark.parametrize("name", ["/nowhere/model", "./nowhere", "~/nowhere/model", "models/tiny.gguf", ""])
def test_a_path_to_nothing_is_not_looked_for_on_the_network(name: str) -> None:
    path = re.escape(str(Path(name).expanduser()))
    with pytest.raises(BackboneError, match=f"no model at {path}: expected a directory with config.json"):
        resolve(name, progress=pytest.fail)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(BackboneError, match=r"no model at .*notes\.txt"):
        resolve(str(tmp_path / "notes.txt"))


# The Hugging Face hub


HUB_SCRIPT = """
import json, sys
from features.errors import BackboneError
from features.registry import resolve
answers = {}
for name in sys.argv[1:]:
    lines = []
    try:
        files = resolve(name, progress=lines.append)
        answers[name] = [str(files.path), files.weights_id, lines]
    except BackboneError as error:
        answers[name] = ["error", str(error), lines]
print(json.dumps(answers))
"""
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list]]:
    """What an offline process gets for each name out of a cache laid out as the hub's client does it."""
    cache = tmp_path_factory.mktemp("hf") / "hub"
    for repository in ("models--org--tiny", "models--tiny-old", "models--org--pickled"):
        write_tiny_model(cache / repository / "snapshots" / COMMIT)
        (cache / repository / "refs").mkdir()
        (cache / repository / "refs" / "main").write_text(COMMIT)
    only_pickled_weights(cache / "models--org--pickled" / "snapshots" / COMMIT)
    names = [
        "org/tiny",
        f"org/tiny@{COMMIT}",
        "tiny-old",
        "org/tiny@v2",
        "org/pickled",
        "smolm2-135m",
        "no name!",
    ]
    done = subprocess.run(
        [sys.executable, "-c", HUB_SCRIPT, *names],
        env=os.environ | {"HF_HOME": str(cache.parent), "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return cache, json.loads(done.stdout)


@pytest.mark.parametrize("name", ["org/tiny", f"org/tiny@{COMMIT}", "tiny-old"])
def test_a_cached_hub_snapshot_needs_no_network(hub: tuple[Path, dict[str, list]], name: str) -> None:
    cache, answers = hub
    repository = "models--" + name.partition("@")[0].replace("/", "--")
    path = cache / repository / "snapshots" / COMMIT
    assert answers[name] == [str(path), resolve(str(path)).weights_id, []]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "org/tiny@v2",
            r"no backbone 'org/tiny@v2': .* hub did not give it \(.*HF_HUB_OFFLINE.* path of a directory",
        ),
        ("org/pickled", r"weights in pytorch_model\.bin: pickled weights are never loaded"),
        (
            "smolm2-135m",
            r"no backbone 'smolm2-135m': .* Did you mean smollm2-135m\? See `pawn backbone list`",
        ),
        ("no name!", "no backbone 'no name!': .*not a hub id"),
    ],
)
def test_a_name_that_gives_nothing_says_what_was_tried(
    hub: tuple[Path, dict[str, list]], name: str, message: str
) -> None:
    kind, text, lines = hub[1][name]
    assert kind == "error"
    assert re.search(message, text), text
    assert lines == ([] if name == "no name!" else [f"{name}: downloading from the Hugging Face hub (once)"])


# What a model is


def test_describe_reads_the_architecture_under_any_name_of_its_fields(tmp_path: Path) -> None:
    files = resolve(str(write_tiny_model(tmp_path / "gpt2", "gpt2", hidden_size=40)))
    assert describe(files) == {
        "architecture": "GPT2LMHeadModel",
        "hidden size": 40,
        "layers": 2,
        "vocabulary": 307,
        "dtype on disk": "F32",
    }


def test_describe_says_which_configuration_cannot_be_read(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "gpt2", "gpt2", hidden_size=40)
    files = resolve(str(path))
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"n_embd": "many"}))
    with pytest.raises(BackboneError, match=f"cannot read {path / 'config.json'}: .*expected that of a"):
        describe(files)


@pytest.mark.slow
def test_the_default_backbone_is_fetched_and_predicts_english() -> None:
    from transformers import AutoModelForCausalLM

    entry = REGISTERED["smollm2-135m"]
    files = resolve("smollm2-135m")
    verify(files)
    facts = describe(files)
    assert (facts["hidden size"], facts["vocabulary"]) == (entry.hidden_size, entry.vocabulary)
    assert facts["dtype on disk"] == "BF16"
    model = AutoModelForCausalLM.from_pretrained(files.path, dtype=torch.float32)
    assert sum(parameter.numel() for parameter in model.parameters()) == entry.parameters
    tokenizer = Tokenizer.from_file(str(files.path / "tokenizer.json"))
    assert tokenizer.encode("List:\n\n1. a").tokens == ["List", ":", "ĊĊ", "1", ".", "Ġa"]
    ids = torch.tensor([tokenizer.encode("The capital of France is Paris, and the capital of Italy is Rome.").ids])
    with torch.inference_mode():
        loss = model(input_ids=ids, labels=ids).loss
    assert 0.5 < loss < 2.5  # nats a token; a uniform guess over 49,152 tokens is 10.8
