"""Sizes are distinct primes where nothing forces otherwise: batch 2, seq 5, hidden 7, metrics 3."""

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from detect.pawn_network import NeighbourLinear, Pawn, collate
from features.token_features import TokenFeatures

BATCH, SEQ, HIDDEN, METRICS, WIDTH, GATES = 2, 5, 7, 3, 6, 3


def make_pawn(seed: int = 0, **arguments) -> Pawn:
    """A float64 network in eval mode, with every parameter and standardisation away from its start."""
    sizes = {"hidden_size": HIDDEN, "metric_count": METRICS, "width": WIDTH, "gates": GATES}
    network = Pawn(**{**sizes, **arguments}).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.7 + 0.1)
    network.set_standardisation(
        metric_mean=torch.randn(METRICS, generator=generator),
        metric_std=torch.rand(METRICS, generator=generator) + 0.5,
        hidden_mean=torch.randn(network.arguments["hidden_size"], generator=generator),
        hidden_std=torch.rand(network.arguments["hidden_size"], generator=generator) + 0.5,
        likelihood_mean=torch.randn(1, generator=generator),
        likelihood_std=torch.rand(1, generator=generator) + 0.5,
    )
    return network


def make_inputs(lengths=(5, 4), seq: int = SEQ, seed: int = 1, hidden_size: int = HIDDEN):
    """Random states and metrics; row r has `lengths[r]` tokens."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(len(lengths), seq, hidden_size, generator=generator, dtype=torch.float64)
    metrics = torch.randn(len(lengths), seq - 1, METRICS, generator=generator, dtype=torch.float64)
    mask = torch.arange(seq - 1) < torch.tensor(lengths)[:, None] - 1
    return hidden, metrics, mask


# The naive twin: lists of floats, one token at a time, from the paper's formulas.


def naive_linear(weight, bias, x):
    return [sum(w * v for w, v in zip(row, x, strict=True)) + b for row, b in zip(weight, bias, strict=True)]


def naive_gelu(x):
    return [v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x]


def naive_norm(weight, x):
    mean = sum(x) / len(x)
    deviation = math.sqrt(sum((v - mean) ** 2 for v in x) / len(x) + 1e-5)
    return [w * (v - mean) / deviation for w, v in zip(weight, x, strict=True)]


def naive_mlp(state, first, body, x):
    x = naive_gelu(naive_linear(state[f"{first}.weight"], state[f"{first}.bias"], x))
    for layer in (0, 1):
        inner = naive_linear(state[f"{body}.middle.{layer}.weight"], state[f"{body}.middle.{layer}.bias"], x)
        x = [a + b for a, b in zip(x, naive_gelu(inner), strict=True)]
        x = naive_norm(state[f"{body}.norms.{layer}.weight"], x)
    return naive_linear(state[f"{body}.out.weight"], state[f"{body}.out.bias"], x)


def naive_standardise(x, mean, std):
    return [(v - m) / s for v, m, s in zip(x, mean, std, strict=True)]


def naive_mix(logits, x):
    exps = [math.exp(v) for v in logits]
    size = len(x) // len(logits)
    return [sum(e * x[place * size + i] for place, e in enumerate(exps)) / sum(exps) for i in range(size)]


def naive_document(network: Pawn, hidden, metrics, scored) -> float:
    state = {name: tensor.tolist() for name, tensor in network.state_dict().items()}
    h = [naive_standardise(x, state["hidden_mean"], state["hidden_std"]) for x in hidden.tolist()]
    h = [naive_mix(state["layer_logits"], x) for x in h] if "layer_logits" in state else h
    m = [naive_standardise(x, state["metric_mean"], state["metric_std"]) for x in metrics.tolist()]
    gate_logits, values = {}, {}
    for i in range(len(m)):
        if scored[i]:
            use_hidden = network.arguments["use_hidden"]
            gate_input = [*(h[i] + h[i + 1] if use_hidden else m[i]), i / 512]
            first = "gate_input.linear" if use_hidden else "gate_input"
            gate_logits[i] = naive_mlp(state, first, "gate_body", gate_input)
            if network.arguments["use_metrics"]:
                values[i] = naive_mlp(state, "metrics_nn.0", "metrics_nn.1", m[i])
            else:
                values[i] = naive_mlp(state, "states_nn.0.linear", "states_nn.1", gate_input)
    pooled = []
    for channel in range(WIDTH):
        gate = channel // (WIDTH // GATES)
        exps = {i: math.exp(logits[gate]) for i, logits in gate_logits.items()}
        pooled.append(sum(exps[i] / sum(exps.values()) * values[i][channel] for i in exps))
    logit = naive_mlp(state, "aggregate_nn.0", "aggregate_nn.1", pooled)[0]
    mean_log_prob = sum(metrics[i][0].item() for i in values) / len(values)
    standardised = (mean_log_prob - state["likelihood_mean"][0]) / state["likelihood_std"][0]
    return logit + network.arguments["likelihood_weight"] * standardised


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"likelihood_weight": 0.7},
        {"use_hidden": False},
        {"use_hidden": False, "likelihood_weight": 0.7},
        {"use_metrics": False},
    ],
)
def test_forward_is_the_paper_computed_in_plain_loops(arguments):
    network = make_pawn(**arguments)
    hidden, metrics, mask = make_inputs()
    mask[0, 1] = False  # a position in the middle may be left out too
    expected = [naive_document(network, hidden[row], metrics[row], mask[row]) for row in range(BATCH)]
    assert_close(network(hidden, metrics, mask), torch.tensor(expected, dtype=torch.float64))


def test_what_an_ablation_leaves_out_never_moves_a_score():
    hidden, metrics, mask = make_inputs()
    without_metrics, without_hidden = make_pawn(use_metrics=False), make_pawn(use_hidden=False)
    assert_close(without_metrics(hidden, metrics + 1, mask), without_metrics(hidden, metrics, mask), rtol=0, atol=0)
    assert_close(without_hidden(hidden + 1, metrics, mask), without_hidden(hidden, metrics, mask), rtol=0, atol=0)


def test_neighbour_linear_is_a_linear_map_of_the_concatenation():
    layer = NeighbourLinear(HIDDEN, 11).double()
    hidden, *_ = make_inputs()
    position = (torch.arange(SEQ - 1, dtype=torch.float64) / 512).expand(BATCH, -1).unsqueeze(-1)
    concatenated = torch.cat([hidden[:, :-1], hidden[:, 1:], position], -1)
    assert_close(layer(hidden), layer.linear(concatenated))


@pytest.mark.parametrize(("hidden_size", "millions"), [(768, 0.99), (2048, 1.6)])
def test_default_head_has_the_parameters_that_the_paper_reports(hidden_size, millions):
    network = Pawn(hidden_size=hidden_size, metric_count=5)
    count = sum(parameter.numel() for parameter in network.parameters())
    digits = 2 if millions < 1 else 1
    assert round(count / 1e6, digits) == millions


def test_each_gate_sums_to_one_over_the_scored_positions():
    weights = make_pawn().gate_weights(*(inputs := make_inputs()))
    assert weights.shape == (BATCH, SEQ - 1, GATES)
    assert_close(weights.sum(1), torch.ones(BATCH, GATES, dtype=torch.float64))
    assert (weights[~inputs[2]] == 0).all()
    assert (weights[inputs[2]] > 0).all()


@pytest.mark.parametrize("arguments", [{}, {"use_hidden": False}, {"use_metrics": False}, {"likelihood_weight": 0.7}])
def test_padding_never_moves_a_score(arguments):
    network = make_pawn(**arguments)
    hidden, metrics, mask = make_inputs(lengths=(5, 3))
    alone = network(hidden[1:, :3], metrics[1:, :2], mask[1:, :2])
    in_batch = network(hidden, metrics, mask)  # the padding of row 1 is random, not zero
    assert_close(in_batch[1:], alone, rtol=1e-12, atol=1e-12)


def test_order_of_the_batch_never_moves_a_score():
    network = make_pawn()
    hidden, metrics, mask = make_inputs(lengths=(5, 4, 2))
    order = torch.tensor([2, 0, 1])
    assert_close(network(hidden[order], metrics[order], mask[order]), network(hidden, metrics, mask)[order])


def test_last_token_of_a_two_token_document_reaches_its_only_gate_input():
    # With one scored position each gate is 1, so the shift shows in the gate's input, not in the score.
    layer = make_pawn().gate_input
    hidden, *_ = make_inputs(lengths=(2,), seq=2)
    changed = hidden.clone()
    changed[0, 1] += 1
    assert layer(hidden).shape == (1, 1, WIDTH)
    assert not torch.allclose(layer(hidden), layer(changed))


def test_state_after_the_last_scored_token_matters_and_the_one_after_that_does_not():
    network = make_pawn()
    hidden, metrics, mask = make_inputs(lengths=(4,))
    before = network(hidden, metrics, mask)
    last, beyond = hidden.clone(), hidden.clone()
    last[0, 3] += 1
    beyond[0, 4] += 1
    assert abs(network(last, metrics, mask) - before) > 1e-6
    assert_close(network(beyond, metrics, mask), before, rtol=0, atol=0)


def test_document_of_two_tokens_scores_its_one_position():
    network = make_pawn()
    hidden, metrics, mask = make_inputs(lengths=(2,), seq=2)
    assert_close(network.gate_weights(hidden, metrics, mask), torch.ones(1, 1, GATES, dtype=torch.float64))
    expected = naive_document(network, hidden[0], metrics[0], mask[0])
    assert_close(network(hidden, metrics, mask), torch.tensor([expected], dtype=torch.float64))


def test_position_moves_a_score():
    network = make_pawn()
    hidden, metrics, mask = make_inputs(lengths=(5,))
    with torch.no_grad():
        before = network(hidden, metrics, mask)
        network.gate_input.linear.weight[:, -1] += 100.0
    assert abs(network(hidden, metrics, mask) - before) > 1e-6


@pytest.mark.parametrize("dropout", [0.15, 0.999])
def test_token_dropout_never_empties_a_document(dropout):
    network = make_pawn(token_dropout=dropout).train()
    hidden, metrics, mask = make_inputs(lengths=(5, 2, 3))
    generator = torch.Generator().manual_seed(3)
    for _ in range(50):
        weights = network.gate_weights(hidden, metrics, mask, generator)
        assert_close(weights.sum(1), torch.ones(3, GATES, dtype=torch.float64))
        assert (weights[~mask] == 0).all()


def test_token_dropout_silences_the_same_positions_in_every_gate_at_its_rate():
    network = make_pawn(token_dropout=0.3).train()
    hidden, metrics, mask = make_inputs(lengths=(2001,), seq=2001)
    dropped = network.gate_weights(hidden, metrics, mask, torch.Generator().manual_seed(4)) == 0
    assert (dropped.all(-1) == dropped.any(-1)).all()
    # Four standard deviations of a share of 2000 draws at 0.3: 4 * sqrt(0.3 * 0.7 / 2000) = 0.041.
    assert abs(dropped[..., 0].double().mean() - 0.3) < 0.041


def test_dropout_follows_the_generator_and_is_off_in_eval():
    network = make_pawn(token_dropout=0.5, hidden_dropout=0.5)
    inputs = make_inputs()
    still = network(*inputs)
    assert_close(network(*inputs, torch.Generator().manual_seed(5)), still, rtol=0, atol=0)
    network.train()
    first, again, other = (network(*inputs, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6))
    assert_close(first, again, rtol=0, atol=0)
    assert not torch.allclose(first, other)


def test_hidden_dropout_silences_a_channel_through_a_whole_document_and_keeps_the_mean():
    network = make_pawn(hidden_dropout=0.25).train()
    hidden, *_ = make_inputs()
    kept = network._states(hidden, torch.Generator().manual_seed(7))
    scale = kept / ((hidden - network.hidden_mean) / network.hidden_std)
    assert_close(scale, scale[:, :1].expand_as(scale))
    assert set(scale[:, 0].flatten().mul(3).round().tolist()) == {0.0, 4.0}  # 1 / (1 - 0.25) = 4 / 3


def test_the_likelihood_is_left_out_in_training():
    plain, weighted = (make_pawn(token_dropout=0.0, likelihood_weight=weight) for weight in (0.0, 0.7))
    inputs = make_inputs()
    assert_close(weighted.train()(*inputs), plain.train()(*inputs), rtol=0, atol=0)
    assert (weighted.eval()(*inputs) - plain.eval()(*inputs)).abs().min() > 1e-3


def test_standardisation_inside_the_network_is_standardisation_before_it():
    network = make_pawn()
    hidden, metrics, mask = make_inputs()
    expected = network(hidden, metrics, mask)
    hidden = (hidden - network.hidden_mean) / network.hidden_std
    metrics = (metrics - network.metric_mean) / network.metric_std
    network.set_standardisation(
        metric_mean=torch.zeros(METRICS),
        metric_std=torch.ones(METRICS),
        hidden_mean=torch.zeros(HIDDEN),
        hidden_std=torch.ones(HIDDEN),
        likelihood_mean=torch.zeros(1),
        likelihood_std=torch.ones(1),
    )
    assert_close(network(hidden, metrics, mask), expected)


@pytest.mark.parametrize("arguments", [{}, {"use_hidden": False}, {"use_metrics": False}])
def test_every_parameter_learns(arguments):
    network = make_pawn(**arguments).train()
    network(*make_inputs(), torch.Generator().manual_seed(8)).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.isfinite().all(), name
        # The bias of a gate moves all logits of a softmax alike, so it alone has no gradient.
        assert (parameter.grad.abs().max() > 1e-9) == (name != "gate_body.out.bias"), name


def test_empty_rows_are_named():
    hidden, metrics, mask = make_inputs(lengths=(5, 1, 3, 1))
    with pytest.raises(ValueError, match=r"rows \[1, 3\] have no scored position; need at least 1"):
        make_pawn()(hidden, metrics, mask)


def test_hidden_states_that_miss_a_token_are_refused():
    hidden, metrics, mask = make_inputs()
    with pytest.raises(ValueError, match=r"hidden must be \(2, 5, d\), got \(2, 4, 7\)"):
        make_pawn()(hidden[:, :-1], metrics, mask)


def test_mask_that_is_not_bool_or_of_another_shape_is_refused():
    hidden, metrics, mask = make_inputs()
    with pytest.raises(ValueError, match=r"bool of shape \(2, 4\), got torch.int64 \(2, 4\)"):
        make_pawn()(hidden, metrics, mask.long())
    with pytest.raises(ValueError, match=r"bool of shape \(2, 4\), got torch.bool \(2, 3\)"):
        make_pawn()(hidden, metrics, mask[:, :3])


def test_arguments_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="got 4 gates and width 6"):
        make_pawn(gates=4)
    with pytest.raises(ValueError, match="got 0 gates and width 6"):
        make_pawn(gates=0)
    with pytest.raises(ValueError, match=r"token_dropout must be in \[0, 1\), got 1.0"):
        make_pawn(token_dropout=1.0)
    with pytest.raises(ValueError, match=r"hidden_dropout must be in \[0, 1\), got -0.1"):
        make_pawn(hidden_dropout=-0.1)
    with pytest.raises(ValueError, match="needs something to read: use_hidden, use_metrics, or both"):
        make_pawn(use_hidden=False, use_metrics=False)
    with pytest.raises(ValueError, match=r"no likelihood can be added, got likelihood_weight 0.7"):
        make_pawn(use_metrics=False, likelihood_weight=0.7)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("metric_mean", torch.zeros(5), r"metric_mean must have shape \(3,\), got \(5,\)"),
        ("metric_mean", torch.tensor([0.0, math.nan, 0.0]), r"metric_mean has unusable values at \[1\]"),
        ("hidden_std", torch.tensor([1.0] * 4 + [0.0] * 3), r"hidden_std has unusable values at \[4, 5, 6\]"),
        ("metric_std", torch.tensor([math.inf, 1.0, -1.0]), r"metric_std has unusable values at \[0, 2\]"),
    ],
)
def test_standardisation_that_cannot_be_is_refused(name, value, message):
    values = {
        "metric_mean": torch.zeros(METRICS),
        "metric_std": torch.ones(METRICS),
        "hidden_mean": torch.zeros(HIDDEN),
        "hidden_std": torch.ones(HIDDEN),
        "likelihood_mean": torch.zeros(1),
        "likelihood_std": torch.ones(1),
    }
    with pytest.raises(ValueError, match=message):
        make_pawn().set_standardisation(**{**values, name: value})


def make_document(n_tokens: int, start: float) -> TokenFeatures:
    return TokenFeatures(
        key=f"{n_tokens}",
        token_ids=np.arange(n_tokens, dtype=np.int32),
        kinds=np.zeros(n_tokens, dtype=np.uint8),
        offsets=np.zeros((n_tokens, 2), dtype=np.int32),
        metrics=start + np.arange((n_tokens - 1) * 2, dtype=np.float32).reshape(-1, 2),
        hidden=(start + np.arange(n_tokens * 3).reshape(-1, 3)).astype(np.float16),
        truncated=False,
    )


@pytest.mark.parametrize(
    ("dtype", "metrics_dtype"), [(torch.float16, torch.float32), (torch.float32,) * 2, (torch.float64,) * 2]
)
def test_collate_pads_on_the_right_with_zeros(dtype, metrics_dtype):
    hidden, metrics, mask = collate([make_document(2, 1.0), make_document(3, 9.0)], dtype)
    assert_close(metrics, torch.tensor([[[1, 2], [0, 0]], [[9, 10], [11, 12]]], dtype=metrics_dtype))
    first, second = [[1, 2, 3], [4, 5, 6], [0, 0, 0]], [[9, 10, 11], [12, 13, 14], [15, 16, 17]]
    assert_close(hidden, torch.tensor([first, second], dtype=dtype))
    assert mask.tolist() == [[True, False], [True, True]]


@pytest.mark.parametrize("arguments", [{}, {"use_metrics": False}])
def test_several_layers_are_mixed_by_learnt_weights_as_in_plain_loops(arguments):
    network = make_pawn(hidden_size=3 * HIDDEN, layers=3, **arguments)
    hidden, metrics, mask = make_inputs(hidden_size=3 * HIDDEN)
    expected = [naive_document(network, *row) for row in zip(hidden, metrics, mask.tolist(), strict=True)]
    assert_close(network(hidden, metrics, mask), torch.tensor(expected, dtype=torch.float64))


def test_the_weights_of_layers_begin_equal_sum_to_one_and_learn():
    network = Pawn(hidden_size=3 * HIDDEN, metric_count=METRICS, width=WIDTH, gates=GATES, layers=3)
    assert network.layer_weights == pytest.approx([1 / 3] * 3)
    hidden, metrics, mask = make_inputs(hidden_size=3 * HIDDEN)
    network(hidden.float(), metrics.float(), mask).sum().backward()
    assert network.layer_logits.grad is not None
    assert network.layer_logits.grad.abs().min() > 0
    with torch.no_grad():
        network.layer_logits.copy_(torch.tensor([0.0, math.log(2), math.log(5)]))
    assert network.layer_weights == pytest.approx([1 / 8, 2 / 8, 5 / 8])


def test_one_layer_adds_no_weight_to_learn():
    assert "layer_logits" not in make_pawn().state_dict()
    assert make_pawn().layer_weights == [1.0]


@pytest.mark.parametrize("layers", [0, 2])
def test_layers_that_do_not_divide_the_hidden_size_are_refused(layers):
    with pytest.raises(ValueError, match=f"layers must divide hidden_size, got {layers} and {HIDDEN}"):
        make_pawn(layers=layers)
