"""A document's features: in company and alone, twice, in order, and from a bounded number of logits.

Tolerances: another company means another shape of the matrix products, hence another order of their sums.
`SAME` states what that costs, with the largest difference that was measured.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from features.backbone import Backbone, Encoding
from features.errors import BackboneError
from features.extractor import HEAD_ROWS, Extractor, batch_by_length, long_enough
from features.registry import BackboneFiles, resolve
from features.token_features import METRIC_NAMES, TokenFeatures
from tests.features.test_metrics import naive_metrics
from tests.features.tiny_models import SENTENCES, write_tiny_model

SMOOTH = [i for i, name in enumerate(METRIC_NAMES) if name not in ("log_rank", "top_p")]
"""The metrics that are continuous in the logits. A near-tie moves log_rank and top_p by a whole token."""

SAME = {torch.float32: 1e-4, torch.bfloat16: 0.2}
"""Largest difference of a smooth metric of one token, nats. Measured: 1.1e-5 and 0.043 on tiny models."""

WORDS = " ".join(SENTENCES).split()
TEXTS = [" ".join(WORDS[i : i + 3 * i + 4]) for i in range(12)]  # 4 to 37 words
KEYS = [f"key{i}" for i in range(len(TEXTS))]

PARAGRAPH = (
    "The ferry left late again on Tuesday, so we sat on the pier and ate the sandwiches that were meant for "
    "the other side. My brother counted gulls, lost the count at thirty, and blamed the wind for it. By the "
    "time the ramp came down nobody was in a hurry any more, and the ticket man waved us through unasked."
)


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def backbone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    path = write_tiny_model(tmp_path_factory.mktemp("llama"))
    return Backbone.load(BackboneFiles("tiny", path, "w", "t"), device="cpu", dtype=request.param)


def extract(extractor: Extractor, texts: Sequence[str], keys: Sequence[str]) -> dict[str, TokenFeatures]:
    return {features.key: features for features in extractor.extract(keys, extractor.encode(texts))}


def largest_difference(one: dict[str, TokenFeatures], other: dict[str, TokenFeatures]) -> float:
    assert one.keys() == other.keys()
    return max(float(np.abs(one[key].metrics[:, SMOOTH] - other[key].metrics[:, SMOOTH]).max()) for key in one)


def largest_rank_difference(one: dict[str, TokenFeatures], other: dict[str, TokenFeatures]) -> float:
    rank = METRIC_NAMES.index("log_rank")
    return max(float(np.abs(np.exp(one[k].metrics[:, rank]) - np.exp(other[k].metrics[:, rank])).max()) for k in one)


def assert_same_bits(one: TokenFeatures, other: TokenFeatures) -> None:
    assert (one.key, one.truncated) == (other.key, other.truncated)
    for name in ("token_ids", "offsets", "metrics", "hidden"):
        assert getattr(one, name).tobytes() == getattr(other, name).tobytes()


def test_features_have_the_shapes_and_types_of_their_docstring(backbone: Backbone) -> None:
    extractor = Extractor(backbone)
    encoding = extractor.encode([TEXTS[0]])[0]
    found = extractor.extract(["key"], [encoding])[0]
    n = len(encoding.token_ids)
    assert (found.metrics.shape, found.metrics.dtype) == ((n - 1, 6), np.float32)
    assert (found.hidden.shape, found.hidden.dtype) == ((n, 32), np.float16)
    assert found.n_tokens == n
    assert np.array_equal(found.offsets, encoding.offsets)


def test_a_document_has_the_same_features_alone_as_in_any_company(backbone: Backbone) -> None:
    together = extract(Extractor(backbone), TEXTS, KEYS)
    alone: dict[str, TokenFeatures] = {}
    for text, key in zip(TEXTS, KEYS, strict=True):
        alone |= extract(Extractor(backbone), [text], [key])
    reversed_order = extract(Extractor(backbone), TEXTS[::-1], KEYS[::-1])
    other_padding = extract(Extractor(backbone, token_budget=200), TEXTS, KEYS)
    for other in (alone, reversed_order, other_padding):
        assert largest_difference(together, other) < SAME[backbone.dtype]
        # Measured: 0 and 2 of 307 tokens change places.
        assert largest_rank_difference(together, other) < (1.5 if backbone.dtype == torch.float32 else 5)


def test_the_hidden_states_of_a_document_are_those_it_has_alone(backbone: Backbone) -> None:
    together = extract(Extractor(backbone), TEXTS, KEYS)
    alone = extract(Extractor(backbone), TEXTS[:1], KEYS[:1])
    # Of numbers up to 4; float32 ends in float16, whose steps below 4 are 0.002. Measured: 0.0003, 0.023.
    tolerance = 0.004 if backbone.dtype == torch.float32 else 0.1
    difference = together["key0"].hidden.astype(float) - alone["key0"].hidden.astype(float)
    assert np.abs(difference).max() < tolerance


def test_the_same_call_twice_gives_the_same_bits(backbone: Backbone) -> None:
    once, again = extract(Extractor(backbone), TEXTS, KEYS), extract(Extractor(backbone), TEXTS, KEYS)
    for key in KEYS:
        assert_same_bits(once[key], again[key])


def test_results_come_in_the_order_of_the_documents(backbone: Backbone) -> None:
    extractor = Extractor(backbone, token_budget=64)
    encodings = extractor.encode(TEXTS)
    found = extractor.extract(KEYS, encodings)
    assert [features.key for features in found] == KEYS
    for features, encoding in zip(found, encodings, strict=True):
        assert np.array_equal(features.token_ids, encoding.token_ids)
        assert np.array_equal(features.kinds, backbone.token_kinds[encoding.token_ids])


def test_no_documents_give_no_features(backbone: Backbone) -> None:
    assert Extractor(backbone).extract([], []) == []


def test_features_keep_no_other_document_alive(backbone: Backbone) -> None:
    for features in Extractor(backbone).extract(KEYS, Extractor(backbone).encode(TEXTS)):
        assert features.hidden.base is None
        assert features.metrics.base is None


def test_no_more_than_head_rows_of_logits_exist_at_a_time(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    projected: list[int] = []
    project = backbone.network.project

    def watched(hidden: Tensor) -> Tensor:
        projected.append(len(hidden))
        return project(hidden)

    monkeypatch.setattr(backbone.network, "project", watched)
    extractor = Extractor(backbone)
    extract(extractor, TEXTS, KEYS)
    assert max(projected) == HEAD_ROWS
    assert sum(projected) == extractor.tokens_done  # padding is not projected


@pytest.mark.parametrize("budget", [64, 200, 1000])
def test_batches_respect_the_token_budget(backbone: Backbone, budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    padded: list[tuple[int, int]] = []
    states = backbone.network.hidden_states

    def watched(token_ids: Tensor) -> Tensor:
        padded.append((token_ids.shape[0], token_ids.shape[1]))
        return states(token_ids)

    monkeypatch.setattr(backbone.network, "hidden_states", watched)
    extract(Extractor(backbone, token_budget=budget), TEXTS, KEYS)
    assert all(size * longest <= budget or size == 1 for size, longest in padded)
    assert sum(size for size, _ in padded) == len(TEXTS)


@pytest.mark.parametrize("n_tokens", [0, 1])
def test_a_document_that_predicts_nothing_is_refused(backbone: Backbone, n_tokens: int) -> None:
    ids = np.arange(n_tokens, dtype=np.int32)
    short = Encoding(ids, np.zeros((n_tokens, 2), np.int32), truncated=False)
    extractor = Extractor(backbone)
    with pytest.raises(ValueError, match=f"document short has {n_tokens} tokens; at least 2 are needed"):
        extractor.extract(["long", "short"], [*extractor.encode([TEXTS[0]]), short])


def test_hidden_states_beyond_float16_are_clamped_and_stay_finite(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path)
    weights = load_file(path / "model.safetensors")
    weights["model.norm.weight"] *= 1e6
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    backbone = Backbone.load(BackboneFiles("tiny", path, "w", "t"), device="cpu", dtype=torch.float32)
    hidden = Extractor(backbone).extract(["key"], backbone.encode([TEXTS[0]], 512))[0].hidden
    assert np.isfinite(hidden).all()
    assert np.abs(hidden).max() == np.finfo(np.float16).max


def test_a_model_that_computes_no_numbers_is_refused(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path)
    weights = load_file(path / "model.safetensors")
    damaged = Backbone.load(BackboneFiles("tiny", path, "w", "t"), device="cpu", dtype=torch.float32)
    encoding = damaged.encode([TEXTS[0]], 512)
    weights["model.embed_tokens.weight"][int(encoding[0].token_ids[3])] = np.nan  # not among those of the first look
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    backbone = Backbone.load(BackboneFiles("tiny", path, "w", "t"), device="cpu", dtype=torch.float32)
    with pytest.raises(BackboneError, match="backbone tiny computes NaN or infinities of a text, in float32"):
        Extractor(backbone).extract(["key"], encoding)


def test_batches_are_runs_of_descending_length_within_the_budget() -> None:
    assert batch_by_length([3, 9, 5, 5, 2], 10) == [[1], [2, 3], [0, 4]]
    assert batch_by_length([], 10) == []
    assert batch_by_length([50], 10) == [[0]]  # a single longer document still goes


def test_a_budget_below_one_token_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        batch_by_length([3], 0)


@pytest.mark.parametrize(("n_tokens", "enough"), [(15, False), (16, True)])
def test_a_score_needs_sixteen_tokens(n_tokens: int, enough: bool) -> None:
    encoding = Encoding(np.zeros(n_tokens, np.int32), np.zeros((n_tokens, 2), np.int32), truncated=False)
    assert long_enough(encoding) is enough


@pytest.mark.parametrize("n_tokens", [2, 5])
def test_a_prefix_has_the_features_of_its_tokens_alone(backbone: Backbone, n_tokens: int) -> None:
    extractor = Extractor(backbone)
    whole = extractor.extract(["key"], extractor.encode([TEXTS[0]]))[0]
    alone = extractor.extract(["key"], backbone.encode([TEXTS[0]], n_tokens))[0]
    prefix = whole.prefix(n_tokens)
    assert prefix.truncated
    assert np.array_equal(prefix.token_ids, alone.token_ids)
    assert np.array_equal(prefix.kinds, alone.kinds)
    assert prefix.hidden.shape == alone.hidden.shape
    assert largest_difference({"": prefix}, {"": alone}) < SAME[backbone.dtype]


@pytest.mark.parametrize("n_tokens", [1, 1000])
def test_a_prefix_longer_than_the_document_or_without_metrics_is_refused(backbone: Backbone, n_tokens: int) -> None:
    whole = Extractor(backbone).extract(["key"], backbone.encode([TEXTS[5]], 16))[0]
    with pytest.raises(ValueError, match=f"expected a prefix of 2 to 16 tokens, got {n_tokens}"):
        whole.prefix(n_tokens)


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def real(request: pytest.FixtureRequest) -> Backbone:
    return Backbone.load(resolve("smollm2-135m"), device="cpu", dtype=request.param)


@pytest.mark.slow
def test_the_real_backbone_gives_a_document_the_same_features_in_company(real: Backbone) -> None:
    words = PARAGRAPH.split()
    texts = [PARAGRAPH, " ".join(words[11:]), " ".join(words[23:] + words)]
    keys = [str(i) for i in range(len(texts))]
    together = extract(Extractor(real), texts, keys)
    alone: dict[str, TokenFeatures] = {}
    for key, text in zip(keys, texts, strict=True):
        alone |= extract(Extractor(real), [text], [key])
    # Measured: 1.6e-5 and 0.27 nats for one token, 5e-7 and 0.002 for the mean of a document.
    one_token, mean = (2e-4, 1e-5) if real.dtype == torch.float32 else (0.5, 0.01)
    assert largest_difference(together, alone) < one_token
    for key in keys:
        means = together[key].metrics[:, SMOOTH].mean(0) - alone[key].metrics[:, SMOOTH].mean(0)
        assert np.abs(means).max() < mean


@pytest.mark.slow
def test_the_real_backbone_agrees_with_its_float64_twin(real: Backbone) -> None:
    if real.dtype != torch.float32:
        pytest.skip("the twin is compared with float32")
    extractor = Extractor(real)
    encoding = extractor.encode([PARAGRAPH])[0]
    found = extractor.extract(["key"], [encoding])[0].metrics
    model = transformers.AutoModelForCausalLM.from_pretrained(real.files.path, dtype=torch.float64).eval()
    with torch.no_grad():
        logits = model(torch.from_numpy(encoding.token_ids).long()[None]).logits[0].tolist()
    ids = encoding.token_ids.tolist()
    expected = np.array([naive_metrics(logits[i], ids[i + 1]) for i in range(len(ids) - 1)])
    assert np.abs(found - expected)[:, SMOOTH].max() < 1e-3  # measured: 1e-4, in the variance
    # A near-tie may move the rank by a token or two.
    assert np.abs(np.exp(found[:, 3]) - np.exp(expected[:, 3])).max() < 3
