"""The two detectors that read texts through a transformer, on disk and at work."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from detect.finetuned import FineTunedEncoder
from detect.finetuning import FineTuningConfig
from detect.hashed_files import sha256_of
from detect.lora import LabelSupervisedLM, LoraShape
from detect.measures import auroc
from detect.protocol import TextDetector
from detect.text_classifier import TextClassifier, pretrained_classifier
from features.backbone import load_tokenizer
from features.documents import canonical_text
from features.errors import BackboneError, DetectorError, UsageError
from features.registry import resolve
from tests.detect.labelled_texts import make_texts
from tests.features.tiny_models import END_OF_TEXT, write_tiny_encoder, write_tiny_model

TEXTS = make_texts(7).texts
KINDS = {"bert": FineTunedEncoder, "roberta": FineTunedEncoder, "llama": LabelSupervisedLM, "gpt2": LabelSupervisedLM}
FILES = {
    FineTunedEncoder: ["config.json", "detector.json", "model.safetensors", "tokenizer.json"],
    LabelSupervisedLM: ["adapter.safetensors", "detector.json"],
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        name: (write_tiny_encoder if kind is FineTunedEncoder else write_tiny_model)(folder / name, name)  # type: ignore[arg-type]  # "str": the architectures
        for name, kind in KINDS.items()
    }


def make(models: dict[str, Path], name: str, **settings):
    settings = {"max_length": 30, "precision": "float32", "device": "cpu"} | settings
    detector = KINDS[name].new("tiny", str(models[name]), **settings)
    if isinstance(detector, LabelSupervisedLM):  # fresh adapters change nothing: let them
        torch.manual_seed(0)
        for name_, parameter in detector.classifier.trainable().items():
            if "lora_B" in name_:
                torch.nn.init.normal_(parameter)
    return detector


each_model = pytest.mark.parametrize("name", KINDS)


@each_model
def test_it_is_a_text_detector(models: dict[str, Path], name: str):
    detector = make(models, name)
    assert isinstance(detector, TextDetector)
    assert (detector.name, detector.reads) == ("tiny", "text")
    assert detector.score([]).shape == (0,)


@each_model
def test_the_score_of_a_text_is_the_same_alone_and_in_any_batch(models: dict[str, Path], name: str):
    detector = make(models, name)
    alone = np.concatenate([detector.score([text]) for text in TEXTS])
    assert alone.dtype == np.float64
    assert len(np.unique(alone)) == len(TEXTS)
    tokens = detector.classifier.encode(TEXTS)
    for budget in (1, 70, 10_000):
        # float32: another batch shape may sum in another order
        np.testing.assert_allclose(detector.classifier.scores(tokens, budget), alone, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(detector.classifier.scores(tokens[::-1], budget), alone[::-1], rtol=1e-5, atol=1e-5)


@each_model
def test_white_space_does_not_move_a_score_and_special_tokens_in_a_text_are_text(models: dict[str, Path], name: str):
    detector = make(models, name)
    np.testing.assert_array_equal(detector.score(["the  river\n ran "]), detector.score(["the river ran"]))
    ids = detector.classifier.encode([f"the river {END_OF_TEXT} ran"])[0]
    assert detector.classifier.pad_id not in ids


@each_model
def test_texts_are_cut_to_their_first_tokens(models: dict[str, Path], name: str):
    detector = make(models, name, max_length=11)
    long = " ".join(TEXTS)
    tokens = detector.classifier.encode([long, TEXTS[0]])
    assert [len(ids) for ids in tokens] == [11, min(11, len(make(models, name).classifier.encode([TEXTS[0]])[0]))]
    assert detector.score([long * 3])[0] == detector.score([long])[0]


@each_model
def test_a_text_without_a_token_is_refused(models: dict[str, Path], name: str):
    with pytest.raises(ValueError, match=r"texts \[1\] have no token; a text needs at least 1"):
        make(models, name).score(["river", "  "])


def test_scoring_in_the_middle_of_training_has_no_dropout_and_leaves_training_on(models: dict[str, Path]):
    detector = make(models, "bert")
    expected = detector.score(TEXTS)
    detector.classifier.model.train()
    np.testing.assert_array_equal(detector.score(TEXTS), expected)
    assert detector.classifier.model.training


def test_the_logit_of_an_encoder_is_that_of_transformers_on_one_text(models: dict[str, Path], tmp_path: Path):
    detector = make(models, "roberta")
    detector.save(tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    ids = load_tokenizer(tmp_path).encode(canonical_text(TEXTS[0])).ids[:30]
    with torch.inference_mode():
        expected = model(input_ids=torch.tensor([ids])).logits
    assert detector.score(TEXTS[:1])[0] == pytest.approx(expected.item(), rel=1e-5)


def naive_lora_logit(detector: LabelSupervisedLM, base: Path, text: str) -> float:
    """The base with each adapted weight replaced by W + (alpha / rank) B A, and the head on the last token's state."""
    model = pretrained_classifier(resolve(str(base)), dtype=torch.float32, seed=0)
    weights = {name.removeprefix("base_model.model."): value for name, value in detector_weights(detector).items()}
    state = model.state_dict()
    for name in weights:
        if name.endswith("lora_A.weight"):
            target = name.replace("lora_A.weight", "weight")
            change = weights[name.replace("lora_A", "lora_B")].double() @ weights[name].double()
            change *= detector.shape.alpha / detector.shape.rank
            state[target] = (state[target].double() + (change if "c_attn" not in name else change.T)).float()
    model.load_state_dict(state)
    ids = torch.from_numpy(detector.classifier.encode([text])[0]).long()[None]
    with torch.inference_mode():
        last = model.base_model.eval()(input_ids=ids).last_hidden_state[0, -1]
    return float(last @ weights["score.weight"][0])


def detector_weights(detector: LabelSupervisedLM) -> dict[str, torch.Tensor]:
    import safetensors.torch

    return safetensors.torch.load(detector._weights())


@pytest.mark.parametrize("name", ["llama", "gpt2"])  # gpt2 keeps its weights transposed
def test_the_logit_of_an_adapted_model_is_the_heads_on_the_last_token(models: dict[str, Path], name: str):
    detector = make(models, name, shape=LoraShape(rank=3, alpha=5))
    expected = [naive_lora_logit(detector, models[name], text) for text in TEXTS]
    np.testing.assert_allclose(detector.score(TEXTS), expected, rtol=1e-4, atol=1e-5)


def test_adapters_sit_where_they_were_asked_for(models: dict[str, Path]):
    def adapted(shape: LoraShape) -> set[str]:
        names = make(models, "llama", shape=shape).classifier.trainable()
        return {name.split(".lora_")[0].rsplit(".", 1)[1] for name in names if "lora_" in name}

    assert adapted(LoraShape()) == {"q_proj", "v_proj"}
    assert adapted(LoraShape(targets=("o_proj",))) == {"o_proj"}
    everything = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert adapted(LoraShape(targets="all-linear")) == everything


@each_model
def test_the_seed_decides_what_is_not_pre_trained(models: dict[str, Path], name: str):
    def parameters(seed: int) -> list[torch.Tensor]:
        return list(KINDS[name].new("tiny", str(models[name]), seed=seed, max_length=9).classifier.trainable().values())

    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first = parameters(0)
    assert torch.equal(torch.rand(2), expected)
    assert all(torch.equal(a, b) for a, b in zip(parameters(0), first, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(parameters(1), first, strict=True))


def test_a_model_is_not_asked_for_more_tokens_than_it_reads(models: dict[str, Path]):
    make(models, "bert", max_length=70)
    with pytest.raises(
        DetectorError, match="max_length 71 is more than this bert can read: 70 tokens; ask for at most"
    ):
        make(models, "bert", max_length=71)
    make(models, "roberta", max_length=69).score(["river " * 99])  # one position is the padding's
    with pytest.raises(DetectorError, match="max_length 70 is more than this roberta can read: 69 tokens"):
        make(models, "roberta", max_length=70)
    with pytest.raises(DetectorError, match="max_length 513 is more than this llama can read: 512 tokens"):
        make(models, "llama", max_length=513)


def test_a_base_that_lacks_weights_is_refused(models: dict[str, Path], tmp_path: Path):
    path = write_tiny_encoder(tmp_path / "model")
    weights = load_file(path / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, path / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        DetectorError, match=r"lacks 1 weights of a bert, bert\.encoder\.layer\.1\.output\.dense\.weight"
    ):
        FineTunedEncoder.new("tiny", str(path), max_length=9)


def test_a_base_without_a_pooler_gets_one_with_the_head(tmp_path: Path):
    path = write_tiny_encoder(tmp_path / "model")
    weights = {n: w for n, w in load_file(path / "model.safetensors").items() if not n.startswith("pooler.")}
    save_file(weights, path / "model.safetensors", {"format": "pt"})
    assert FineTunedEncoder.new("tiny", str(path), max_length=9).score(TEXTS).shape == (7,)


def test_a_base_in_eight_bit_integers_is_refused(models: dict[str, Path]):
    with pytest.raises(UsageError, match="is to be fine-tuned, in its own number format: leave :int8 out of --base"):
        LabelSupervisedLM.new("tiny", f"{models['llama']}:int8", max_length=9)


def test_adapters_of_layers_that_are_not_there_are_refused(models: dict[str, Path]):
    with pytest.raises(DetectorError, match=r"no LoRA adapters for .*: No modules were targeted .*; name the linear"):
        make(models, "llama", shape=LoraShape(targets=("nowhere",)))


def test_an_encoder_is_no_base_for_adapters_of_a_language_model(tmp_path: Path):
    path = write_tiny_encoder(tmp_path / "model")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"model_type": "distilbert"}))
    with pytest.raises(BackboneError, match="expected a causal language model, got model type 'distilbert'"):
        LabelSupervisedLM.new("tiny", str(path))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 0}, "a rank and an alpha of at least 1, got 0 and 32"),
        ({"dropout": 1.0}, "expected 0 <= dropout < 1, got 1.0"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(settings: dict, message: str):
    with pytest.raises(ValueError, match=message):
        LoraShape(**settings)


def test_bfloat16_scores_are_near_the_float32_ones(models: dict[str, Path]):
    for name in KINDS:
        expected = make(models, name).score(TEXTS)
        found = make(models, name, precision="bfloat16").score(TEXTS)
        assert not np.array_equal(found, expected)
        # bfloat16 keeps 8 bits; tiny models with wide weights amplify it
        np.testing.assert_allclose(found, expected, atol=0.3)


# On disk


@each_model
def test_a_saved_and_loaded_detector_is_the_same(models: dict[str, Path], name: str, tmp_path: Path):
    detector = make(models, name)
    config = FineTuningConfig(epochs=1, batch_size=4)
    detector.fit(make_texts(8), make_texts(4, seed=1), config)
    detector.save(tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == FILES[KINDS[name]]
    loaded = KINDS[name].load(tmp_path / "new", precision="float32", device="cpu")
    np.testing.assert_array_equal(loaded.score(TEXTS), detector.score(TEXTS))
    assert loaded.card.base == detector.card.base
    assert loaded.card.training == json.loads(json.dumps(detector.card.training))
    assert loaded.card.training["epochs"][0]["epoch"] == 1
    assert loaded.classifier.max_length == 30
    assert loaded.weights_sha256() == detector.weights_sha256()
    loaded.save(tmp_path / "again")
    for file in FILES[KINDS[name]]:
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "new" / file).read_bytes()


def test_an_encoder_is_whole_without_its_base_and_an_adapter_is_not(models: dict[str, Path], tmp_path: Path):
    encoder = write_tiny_encoder(tmp_path / "encoder")
    FineTunedEncoder.new("tiny", str(encoder), max_length=9).save(tmp_path / "a")
    language_model = write_tiny_model(tmp_path / "llama")
    LabelSupervisedLM.new("tiny", str(language_model), max_length=9).save(tmp_path / "b")
    encoder.rename(tmp_path / "gone")
    language_model.rename(tmp_path / "gone too")
    assert FineTunedEncoder.load(tmp_path / "a").score(TEXTS).shape == (7,)
    message = f"the detector in {tmp_path / 'b'} needs its base model {language_model}: no model at {language_model}"
    with pytest.raises(DetectorError, match=message):
        LabelSupervisedLM.load(tmp_path / "b")


def test_adapters_of_another_base_are_refused(tmp_path: Path):
    base = write_tiny_model(tmp_path / "llama")
    LabelSupervisedLM.new("tiny", str(base), max_length=9).save(tmp_path / "detector")
    before = resolve(str(base)).weights_id
    after = resolve(str(write_tiny_model(base, seed=1))).weights_id
    with pytest.raises(DetectorError, match=f"trained on {base} with weights_id {before}, .* now has {after}; put the"):
        LabelSupervisedLM.load(tmp_path / "detector")


@pytest.mark.parametrize(
    ("name", "file"),
    [(name, file) for name in ("bert", "llama") for file in FILES[KINDS[name]]],
)
def test_a_missing_file_is_named(models: dict[str, Path], name: str, file: str, tmp_path: Path):
    make(models, name).save(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(DetectorError, match=f"cannot read .*{file} .No such file"):
        KINDS[name].load(tmp_path)


@pytest.mark.parametrize(
    ("name", "file"),
    [(name, file) for name in ("bert", "llama") for file in FILES[KINDS[name]] if file != "detector.json"],
)
def test_a_flipped_bit_is_refused(models: dict[str, Path], name: str, file: str, tmp_path: Path):
    make(models, name).save(tmp_path)
    content = bytearray((tmp_path / file).read_bytes())
    content[-3] ^= 1
    (tmp_path / file).write_bytes(bytes(content))
    with pytest.raises(DetectorError, match=rf"{file} has SHA-256 \w+, detector.json says"):
        KINDS[name].load(tmp_path)


def edit_card(directory: Path, **values: object) -> None:
    card = json.loads((directory / "detector.json").read_text())
    (directory / "detector.json").write_text(json.dumps(card | values))


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("bert", {"kind": "lora"}, "kind 'lora', expected 'encoder'"),
        ("llama", {"kind": "encoder"}, "kind 'encoder', expected 'lora'"),
        ("bert", {"text_version": 0}, "reads texts in form 0, this program gives form 1; train it again"),
        ("bert", {"files": {"../x": "0"}}, r"does not say the hashes of model\.safetensors, config\.json, tokenizer"),
        ("bert", {"name": ""}, "does not describe a detector of kind 'encoder' .*needs a name"),
        ("bert", {"base": {"name": "x"}}, r"base model lacks \['tokenizer_id', 'weights_id'\]"),
        ("bert", {"max_length": "9"}, "expected a max_length of at least 1, got '9'"),
        ("bert", {"max_length": 71}, "max_length 71 is more than this bert can read"),
        ("llama", {"lora": {"rank": 0}}, r"does not describe LoRA adapters .*at least 1, got 0"),
        ("llama", {"lora": {"megatron_core": "os"}}, "does not describe LoRA adapters .*megatron_core"),
        ("llama", {"lora": {"rank": 3}}, r"lora_A.weight is \(16, 32\), the card's adapters need \(3, 32\)"),
        ("llama", {"lora": {"targets": ["q_proj"]}}, r"v_proj.lora_A.weight is \(16, 32\), .* adapters need none"),
    ],
)
def test_a_card_that_does_not_fit_is_refused(
    models: dict[str, Path], name: str, values: dict, message: str, tmp_path: Path
):
    make(models, name).save(tmp_path)
    edit_card(tmp_path, **values)
    with pytest.raises(DetectorError, match=message):
        KINDS[name].load(tmp_path)


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        ("bert", "model.safetensors", b"", "does not hold a whole encoder: Error while deserializing"),
        ("bert", "config.json", b'{"model_type": "nowhere"}', "whole encoder: Unrecognized model identifier: nowhere"),
        ("bert", "config.json", b"[]", "does not hold a whole encoder"),
        ("bert", "tokenizer.json", b"{}", "does not hold a whole encoder"),
        ("llama", "adapter.safetensors", b"", r"adapter\.safetensors is not a safetensors file"),
    ],
)
def test_hashed_files_that_are_something_else_are_refused(
    models: dict[str, Path], name: str, file: str, content: bytes, message: str, tmp_path: Path
):
    make(models, name).save(tmp_path)
    (tmp_path / file).write_bytes(content)
    hashes = json.loads((tmp_path / "detector.json").read_text())["files"]
    edit_card(tmp_path, files=hashes | sha256_of({file: content}))
    with pytest.raises(DetectorError, match=message):
        KINDS[name].load(tmp_path)


def test_weights_of_another_network_are_refused(models: dict[str, Path], tmp_path: Path):
    make(models, "bert").save(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["classifier.bias"]
    save_file(weights, tmp_path / "model.safetensors")
    content = (tmp_path / "model.safetensors").read_bytes()
    hashes = json.loads((tmp_path / "detector.json").read_text())["files"]
    edit_card(tmp_path, files=hashes | sha256_of({"model.safetensors": content}))
    with pytest.raises(
        DetectorError, match=r"does not hold a whole encoder: .*Missing key\(s\) in state_dict: .classifier\.bias"
    ):
        FineTunedEncoder.load(tmp_path)


def test_a_configuration_cannot_name_code_of_its_author(models: dict[str, Path], tmp_path: Path):
    make(models, "bert").save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    content = json.dumps(config | {"auto_map": {"AutoModelForSequenceClassification": "evil.Evil"}}).encode()
    (tmp_path / "config.json").write_bytes(content)
    hashes = json.loads((tmp_path / "detector.json").read_text())["files"]
    edit_card(tmp_path, files=hashes | sha256_of({"config.json": content}))
    assert FineTunedEncoder.load(tmp_path).score(TEXTS).shape == (7,)


# Real models


@pytest.mark.slow
def test_minilm_tells_two_kinds_of_text_apart_after_a_few_steps(tmp_path: Path):
    detector = FineTunedEncoder.new("minilm", max_length=24)
    assert isinstance(detector.classifier, TextClassifier)
    detector.fit(make_texts(48), make_texts(16, seed=1), FineTuningConfig(epochs=2, batch_size=8, learning_rate=3e-4))
    judged = make_texts(16, seed=2)
    scores = detector.score(judged.texts)
    assert auroc(judged.labels, scores) > 0.9
    detector.save(tmp_path)
    np.testing.assert_array_equal(FineTunedEncoder.load(tmp_path).score(judged.texts), scores)


@pytest.mark.slow
def test_the_default_backbone_learns_through_adapters(tmp_path: Path):
    detector = LabelSupervisedLM.new("smollm2", max_length=24)
    count = sum(parameter.numel() for parameter in detector.classifier.trainable().values())
    assert count == 30 * 16 * (2 * 576 + 576 + 192) + 576  # query and value adapters of 30 layers, and the head
    config = FineTuningConfig(epochs=2, batch_size=8, learning_rate=2e-3)
    detector.fit(make_texts(40), make_texts(16, seed=1), config)
    judged = make_texts(16, seed=2)
    scores = detector.score(judged.texts)
    assert auroc(judged.labels, scores) > 0.9
    detector.save(tmp_path)
    np.testing.assert_array_equal(LabelSupervisedLM.load(tmp_path).score(judged.texts), scores)
