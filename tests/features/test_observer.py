"""Metrics of two models against a naive float64 twin, and pairs that cannot be compared."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor
from torch.testing import assert_close

from features.backbone import Backbone
from features.errors import BackboneError, UsageError
from features.extractor import HEAD_ROWS, Extractor
from features.metrics import cross_metrics, next_token_metrics
from features.observer import Observer, load_observer
from features.registry import BackboneFiles, resolve
from features.token_features import CROSS_METRIC_NAMES, TokenFeatures
from tests.features.tiny_models import SENTENCES, write_tiny_model


def naive_log_probs(logits: list[float]) -> list[float]:
    peak = max(logits)
    total = math.fsum(math.exp(x - peak) for x in logits)
    return [x - peak - math.log(total) for x in logits]


def naive_cross(observer: list[float], performer: list[float]) -> list[float]:
    """Cross-entropy and variance of one position, from their definitions, in float64."""
    probs = [math.exp(x) for x in naive_log_probs(observer)]
    log_probs = naive_log_probs(performer)
    mean = math.fsum(p * x for p, x in zip(probs, log_probs, strict=True))
    return [-mean, math.fsum(p * (x - mean) ** 2 for p, x in zip(probs, log_probs, strict=True))]


def logits(seed: int, scale: float = 3.0) -> Tensor:
    return torch.randn(13, 101, generator=torch.Generator().manual_seed(seed)) * scale


@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
def test_the_metrics_of_two_models_are_their_definitions(scale: float) -> None:
    observer, performer = logits(0, scale), logits(1, scale)
    rows = zip(observer.double().tolist(), performer.double().tolist(), strict=True)
    assert_close(cross_metrics(observer, performer), torch.tensor([naive_cross(*row) for row in rows]))
    assert CROSS_METRIC_NAMES == ("cross_entropy", "cross_variance")


def test_of_one_model_twice_they_are_entropy_and_variance() -> None:
    same = logits(2)
    metrics = next_token_metrics(same, torch.zeros(13, dtype=torch.long))
    assert_close(cross_metrics(same, same), metrics[:, [1, 5]])


def test_uniform_predictions_expect_ln_vocab_of_each_other_without_variance() -> None:
    found = cross_metrics(torch.zeros(3, 7), torch.full((3, 7), 5.0))
    assert_close(found, torch.tensor([[math.log(7), 0.0]]).expand(3, 2))


def test_the_roles_are_not_alike_and_inputs_stay_as_they_were() -> None:
    one, other = logits(3), logits(4)
    before = one.clone(), other.clone()
    assert (cross_metrics(one, other) - cross_metrics(other, one)).abs().min() > 1e-3
    assert_close((one, other), before, rtol=0, atol=0)


def test_predictions_over_other_vocabularies_do_not_pair() -> None:
    with pytest.raises(ValueError, match=r"expected two \(rows, vocab\) of logits, got \(2, 7\) and \(2, 11\)"):
        cross_metrics(torch.zeros(2, 7), torch.zeros(2, 11))


@pytest.fixture(scope="module")
def performer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("performer"), num_hidden_layers=3)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another architecture and hidden size, over the same vocabulary."""
    return write_tiny_model(tmp_path_factory.mktemp("observer"), "gpt2", seed=5, hidden_size=48)


def load(path: Path) -> Backbone:
    return Backbone.load(resolve(str(path)), device="cpu", dtype=torch.float32)


def extract(backbone: Backbone, observer: Observer | None, **options: int) -> list[TokenFeatures]:
    extractor = Extractor(backbone, observer=observer, **options)
    return extractor.extract([str(i) for i in range(len(SENTENCES))], extractor.encode(SENTENCES))


def whole(path: Path) -> transformers.PreTrainedModel:
    return transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).eval()


def expected_cross(document: TokenFeatures, observed: Tensor, performed: Tensor) -> np.ndarray:
    rows = list(zip(observed.tolist(), performed.tolist(), strict=True))[: document.n_tokens - 1]
    return np.array([naive_cross(*row) for row in rows])


def test_two_models_side_by_side_give_what_each_gives_alone_in_float64(performer: Path, other: Path) -> None:
    backbone = load(performer)
    models = whole(other), whole(performer)
    plain = extract(backbone, None)
    for alone, found in zip(plain, extract(backbone, load_observer(str(other), backbone)), strict=True):
        ids = torch.from_numpy(found.token_ids).long()[None]
        with torch.no_grad():
            observed, performed = (model(ids).logits[0] for model in models)
        assert found.cross is not None
        assert (found.cross.shape, found.cross.dtype) == ((found.n_tokens - 1, 2), np.float32)
        np.testing.assert_allclose(found.cross, expected_cross(found, observed, performed), rtol=1e-4, atol=1e-4)
        assert (found.metrics.tobytes(), found.hidden.tobytes()) == (alone.metrics.tobytes(), alone.hidden.tobytes())
        assert alone.cross is None


def test_an_early_exit_is_the_final_norm_and_projection_of_an_inner_layer(performer: Path) -> None:
    backbone = load(performer)
    model = whole(performer)
    for document in extract(backbone, load_observer("@2", backbone)):
        with torch.no_grad():
            output = model(torch.from_numpy(document.token_ids).long()[None], output_hidden_states=True)
            observed = model.lm_head(model.model.norm(output.hidden_states[2]))[0]
        expected = expected_cross(document, observed, output.logits[0])
        np.testing.assert_allclose(document.cross, expected, rtol=1e-4, atol=1e-4)


def test_a_prefix_keeps_its_part_of_the_metrics_of_two_models(performer: Path) -> None:
    backbone = load(performer)
    document = extract(backbone, load_observer("@1", backbone))[0]
    assert document.cross is not None
    prefix = document.prefix(7).cross
    assert prefix is not None
    assert prefix.tolist() == document.cross[:6].tolist()


def test_no_more_than_head_rows_of_either_models_logits_exist_at_a_time(
    performer: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = load(performer)
    observer = load_observer(str(other), backbone)
    projected: dict[str, list[int]] = {}
    for model in (backbone, observer.backbone):
        counts = projected.setdefault(model.name, [])
        project = model.network.project

        def watched(hidden: Tensor, project=project, counts=counts) -> Tensor:
            counts.append(len(hidden))
            return project(hidden)

        monkeypatch.setattr(model.network, "project", watched)
    documents = extract(backbone, observer)
    for counts in projected.values():
        assert max(counts) <= HEAD_ROWS
        assert sum(counts) == sum(document.n_tokens for document in documents)


def test_a_pair_has_a_fingerprint_of_its_own_that_names_the_observer(performer: Path, other: Path) -> None:
    backbone = load(performer)
    alone = Extractor(backbone).fingerprint
    own = Extractor(backbone, observer=load_observer(str(other), backbone)).fingerprint
    exits = [Extractor(backbone, observer=load_observer(name, backbone)).fingerprint for name in ("@1", "@2")]
    assert "observer" not in alone.to_dict()
    assert own.to_dict() == alone.to_dict() | {"observer": resolve(str(other)).weights_id}
    assert exits[0].to_dict() == alone.to_dict() | {"observer": "layer 1"}
    assert len({fingerprint.digest for fingerprint in (alone, own, *exits)}) == 4


def test_an_observer_in_eight_bit_integers_has_another_fingerprint_than_one_without(performer: Path) -> None:
    backbone = load(performer)
    names = (str(performer), f"{performer}:int8")
    prints = [Extractor(backbone, observer=load_observer(name, backbone)).fingerprint for name in names]
    assert prints[0].observer == resolve(str(performer)).weights_id  # as it was before there were such observers
    assert prints[0].digest != prints[1].digest


def test_a_local_observer_is_known_by_its_whole_path(
    performer: Path, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(other.parent)
    assert load_observer(other.name, load(performer)).name == str(other.resolve())


def test_a_pair_of_different_vocabularies_is_refused(performer: Path, tmp_path: Path) -> None:
    wider = write_tiny_model(tmp_path / "wider", vocab_size=320)
    with pytest.raises(BackboneError, match=r"have different vocabularies \(they predict 320 and 307 tokens\)"):
        load_observer(str(wider), load(performer))
    renamed = write_tiny_model(tmp_path / "renamed")
    content = json.loads((renamed / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (renamed / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(BackboneError, match=r"token 'a' is number \d+ and \d+\); their predictions cannot be compared"):
        load_observer(str(renamed), load(performer))


@pytest.mark.parametrize("name", ["@0", "@3", "@4", "@", "@-1", "@two"])
def test_an_early_exit_is_an_inner_layer(performer: Path, name: str) -> None:
    with pytest.raises(UsageError, match=f"no early exit {name}: expected @1 to @2, an inner layer of "):
        load_observer(name, load(performer))


def test_a_length_that_the_observer_cannot_read_is_refused(performer: Path, tmp_path: Path) -> None:
    short = write_tiny_model(tmp_path, max_position_embeddings=64)
    backbone = load(performer)
    with pytest.raises(BackboneError, match=r"--max-length 65 is more than backbone .* can read: 64"):
        Extractor(backbone, max_length=65, observer=load_observer(str(short), backbone))
    files = BackboneFiles("tiny", performer, "w", "t")
    assert Observer("x", Backbone.load(files, device="cpu", dtype=torch.float32)).identity == "w"
