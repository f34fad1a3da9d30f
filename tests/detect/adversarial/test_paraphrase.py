"""Paraphrase: which passages are written anew, by what, and what is kept of the answers."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM, BartConfig, MT5Config, PegasusConfig, PreTrainedConfig, T5Config

from detect.adversarial.attack import AttackMeans
from detect.adversarial.catalog import attack_entry, attack_named
from detect.adversarial.paraphrase import Paraphrase, cleaned
from detect.adversarial.writer import Writer
from features.backbone import Backbone
from features.errors import BackboneError, UsageError
from tests.detect.adversarial.attacked import WITHOUT, attacked, document
from tests.features.test_backbone import load
from tests.features.tiny_models import tiny_tokenizer, write_tiny_encoder, write_tiny_model

TEXT = "One is here. Two is there. Three is away.\n\nFour goes home. Five stays."


class Answers(Writer):
    """A writer that says what it is told to."""

    def __init__(self, *answers: str) -> None:
        self.answers = answers
        self.asked: list[list[str]] = []

    def rewritten(self, passages: Sequence[str], *, seed: int) -> list[str]:
        self.asked.append(list(passages))
        return list(self.answers[: len(passages)])


def with_answers(writer: Writer, text: str, strength: float = 1.0) -> str:
    attack = Paraphrase(WITHOUT)
    attack.__dict__["_writer"] = writer  # in the place of the one that would be loaded
    return attack.apply([document(text)], strength, 0)[0].text


def tiny_config(model_type: str) -> PreTrainedConfig:
    shared: dict[str, Any] = {"vocab_size": len(tiny_tokenizer()), "d_model": 32, "decoder_start_token_id": 0}
    shared |= {"pad_token_id": 0, "eos_token_id": 0}
    if model_type in ("t5", "mt5"):
        kind = {"t5": T5Config, "mt5": MT5Config}[model_type]
        return kind(**shared, d_kv=16, d_ff=64, num_layers=2, num_heads=2)
    sizes = {"layers": 1, "attention_heads": 2, "ffn_dim": 48}
    halves = {f"{half}_{name}": size for half in ("encoder", "decoder") for name, size in sizes.items()}
    kind = {"bart": BartConfig, "pegasus": PegasusConfig}[model_type]
    return kind(**shared, **halves, max_position_embeddings=200, bos_token_id=0, forced_eos_token_id=0)


def write_tiny_writer(path: Path, model_type: str) -> Path:
    """Write a random sequence-to-sequence model with the tokenizer's files; returns `path`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModelForSeq2SeqLM.from_config(tiny_config(model_type), dtype=torch.float32).save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


def drop_weights(path: Path, ending: str) -> None:
    """Leave out of a model's file the weights whose names end so."""
    weights = load_file(path / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if not name.endswith(ending)}
    assert len(kept) < len(weights)
    save_file(kept, path / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture(scope="module")
def means(tmp_path_factory: pytest.TempPathFactory) -> AttackMeans:
    backbone = load(write_tiny_model(tmp_path_factory.mktemp("llama")))
    return AttackMeans(backbone=lambda: backbone)


def test_passages_of_three_sentences_are_written_anew_and_the_space_between_stays() -> None:
    writer = Answers("All three are somewhere else.", "Both rest now.")
    assert with_answers(writer, TEXT) == "All three are somewhere else.\n\nBoth rest now."
    assert writer.asked == [["One is here. Two is there. Three is away.", "Four goes home. Five stays."]]


def test_a_share_of_the_passages_is_written_anew() -> None:
    found = with_answers(Answers("Something else is here now."), TEXT, 0.5)
    assert found in (
        "Something else is here now.\n\nFour goes home. Five stays.",
        "One is here. Two is there. Three is away.\n\nSomething else is here now.",
    )


@pytest.mark.parametrize("answer", ["", " \n", "Sure, here it is:", "No."])
def test_a_passage_without_a_real_answer_stays(answer: str) -> None:
    assert with_answers(Answers(answer, answer), TEXT) == TEXT


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("  Sure! Here is the text in other words:\n\nIt rains.\nIt pours. ", "It rains. It pours."),
        ('"It rains and pours."', "It rains and pours."),
        ('"It rains," he said, "and pours."', '"It rains," he said, "and pours."'),
        ("It rains. It pours. And then it", "It rains. It pours."),
        ("It rains and then it", "It rains and then it"),
        ("It rains. In this rewritten text, I kept the meaning.", "It rains."),
        ("Here are two: one and two.", "one and two."),
    ],
)
def test_answers_are_rid_of_what_is_not_text(written: str, expected: str) -> None:
    assert cleaned(written) == expected


def test_the_backbone_writes_the_same_for_the_same_seed_in_any_company(means: AttackMeans) -> None:
    state = torch.random.get_rng_state()
    alone = attacked("paraphrase", TEXT, means=means)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert attacked("paraphrase", ["Another text. It is here.", TEXT], means=means)[1:] == alone
    assert attacked("paraphrase", TEXT, seed=1, means=means) != alone
    assert alone[0].strip()


def test_nothing_to_write_needs_no_language_model() -> None:
    assert attacked("paraphrase", ["", " \n"], 1.0) == ["", " \n"]
    assert attacked("paraphrase", TEXT, 0.0) == [TEXT]


@pytest.mark.parametrize("model_type", ["t5", "bart"])
def test_a_sequence_to_sequence_model_writes_when_it_is_named(model_type: str, tmp_path: Path) -> None:
    name = f"paraphrase:{write_tiny_writer(tmp_path, model_type)}"
    answer = Writer.named(str(tmp_path)).rewritten(["One is here."], seed=0)
    assert answer == Writer.named(str(tmp_path)).rewritten(["One is here."], seed=0)
    assert attack_entry(name).name == name
    assert attacked(name, TEXT)[0].strip()


@pytest.mark.parametrize(
    ("model_type", "prefix"), [("t5", "paraphrase: "), ("mt5", "paraphrase: "), ("bart", ""), ("pegasus", "")]
)
def test_only_models_of_the_family_of_t5_are_given_a_prefix(
    model_type: str, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Writer.named(str(write_tiny_writer(tmp_path, model_type)))
    asked: list[str] = []

    def generate(*, input_ids: torch.Tensor, **options: object) -> torch.Tensor:
        asked.extend(tiny_tokenizer().decode(ids) for ids in input_ids)
        return input_ids

    monkeypatch.setattr(writer._model, "generate", generate)
    writer.rewritten(["One {is} here."], seed=0)
    assert asked == [f"{prefix}One {{is}} here."]


@pytest.mark.parametrize("model_type", ["t5", "bart", "gpt2"])
@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("config.json", None, "does not load as a configuration: .*'pad_token_id'.* a whole config.json: fetch the"),
        ("tokenizer.json", '{"version": "1.0", ', "does not load as a tokenizer: .*a whole tokenizer.json .*: fetch"),
        ("tokenizer.json", '{"version": "1.0"}', "does not load as a tokenizer: .*a whole tokenizer.json .*: fetch"),
        ("tokenizer_config.json", "[]", "does not load as a tokenizer: .*its tokenizer_config.json: fetch the model"),
        (
            "tokenizer_config.json",
            '{"tokenizer_class": "PreTrainedTokenizerFast"}',
            "has a tokenizer without padding and end token; expected .* tokenizer_config.json: fetch the model again",
        ),
    ],
)
def test_a_damaged_folder_is_refused_and_says_which_file(
    name: str, content: str | None, expected: str, model_type: str, tmp_path: Path
) -> None:
    path = write_tiny_model(tmp_path, "gpt2") if model_type == "gpt2" else write_tiny_writer(tmp_path, model_type)
    if content is None:  # JSON, and of a known type of model, as it must be to get so far
        content = json.dumps(json.loads((path / name).read_text()) | {"pad_token_id": "none"})
    (path / name).write_text(content)
    with pytest.raises(BackboneError, match=expected) as refused:
        attacked(f"paraphrase:{path}", TEXT)
    assert str(path) in str(refused.value)


def test_a_backbone_whose_tokenizer_was_damaged_since_does_not_write(tmp_path: Path) -> None:
    backbone = load(write_tiny_model(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(BackboneError, match="does not load as a tokenizer"):
        attacked("paraphrase", TEXT, means=AttackMeans(backbone=lambda: backbone))


def test_a_model_without_some_of_its_weights_does_not_write(tmp_path: Path) -> None:
    drop_weights(write_tiny_writer(tmp_path, "t5"), "encoder.final_layer_norm.weight")
    with pytest.raises(BackboneError, match=r"lacks 1 weights of a t5 model that writes, encoder.final_layer_norm.w"):
        Writer.named(str(tmp_path))


def test_positions_that_are_computed_may_be_left_out_of_the_weights(tmp_path: Path) -> None:
    path = write_tiny_writer(tmp_path, "pegasus")
    whole = Writer.named(str(path)).rewritten(["One is here."], seed=0)
    drop_weights(path, "embed_positions.weight")
    assert Writer.named(str(path)).rewritten(["One is here."], seed=0) == whole


def test_positions_that_are_learnt_may_not_be_left_out(tmp_path: Path) -> None:
    path = write_tiny_writer(tmp_path, "bart")
    drop_weights(path, "embed_positions.weight")
    with pytest.raises(BackboneError, match="lacks 2 weights of a bart model that writes"):
        Writer.named(str(path))


def test_a_causal_model_writes_when_it_is_named(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path, "gpt2")
    assert attacked(f"paraphrase:{path}", TEXT) == attacked(f"paraphrase:{path}", TEXT)


def test_a_passage_too_long_for_the_positions_of_a_model_stays(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path, "gpt2")
    writer = Writer.named(str(path))
    short, long = "One is here. Two is there.", "word " * 20_000
    assert writer.rewritten([long], seed=0) == [""]
    assert writer.rewritten([long, short], seed=0) == ["", *writer.rewritten([short], seed=0)]
    assert attacked(f"paraphrase:{path}", long.strip()) == [long.strip()]


def test_an_encoder_does_not_write(tmp_path: Path) -> None:
    attack = attack_named(f"paraphrase:{write_tiny_encoder(tmp_path)}", WITHOUT)
    # BERT is among the architectures that transformers can give a causal head, so it is its weights that tell.
    with pytest.raises(BackboneError, match="weights of a bert language model"):
        attack.apply([document(TEXT)], 1.0, 0)


def test_the_registered_encoder_does_not_write_either() -> None:
    with pytest.raises(BackboneError, match="all-minilm-l6-v2 is an encoder: it predicts no next token"):
        attacked("paraphrase:all-minilm-l6-v2", TEXT)


@pytest.mark.parametrize("name", ["paraphrase:", "homoglyph:gpt2"])
def test_a_model_is_named_only_where_one_writes(name: str) -> None:
    with pytest.raises(UsageError, match=f"no attack named '{name}': after a colon comes .* in paraphrase:MODEL"):
        attack_named(name, WITHOUT)


@pytest.mark.slow
def test_the_real_backbone_keeps_words_of_the_text(backbone_home: Path) -> None:
    from detect.catalog import DEFAULT_BACKBONE
    from features.registry import resolve

    real = Backbone.load(resolve(DEFAULT_BACKBONE), device="cpu")
    text = "The river ran past the old mill. The bridge was built of stone. Many people crossed it every day."
    found = attacked("paraphrase", text, means=AttackMeans(backbone=lambda: real))[0]
    assert found != text
    assert {"river", "bridge", "mill", "people"} & set(found.lower().replace(".", "").replace(",", "").split())
