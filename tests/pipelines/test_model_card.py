"""The tables of the model card: every figure of it is one of these."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.model_card import (
    check_attacked,
    hardened_table,
    length_table,
    own_table,
    rivals_table,
    trade_table,
)
from detect.calibration import Calibration
from detect.catalog import DEFAULT_DETECTOR, PRETRAINED, load_detector

RATES = ("0.5%", "1%", "2%", "5%", "10%")


def row(held_out: str, value: float, human: int = 40) -> dict:
    """Figures of a left-out domain, all of them the same."""
    names = [f"{kind}@{rate}" for kind in ("tpr", "real fpr", "real tpr") for rate in RATES]
    return {"held_out": held_out, "human": human, "machine": 30, "auroc": value} | dict.fromkeys(names, value)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_last_line_of_the_own_figures_is_the_mean_over_left_out_domains() -> None:
    rows = [{"protocol": "in-domain"} | row("nothing", 0.9)]
    rows += [{"protocol": "domain"} | row(name, value) for name, value in (("news", 0.5), ("essay", 0.75))]
    lines = own_table(rows).splitlines()
    assert cells(lines[2])[:3] == ["in-domain: nothing", "40 / 30", "0.900"]
    assert cells(lines[-1]) == ["**domain: mean**", "", *["**0.625**"] * 7]


def test_the_trade_names_the_mean_and_the_worst_domain_of_each_rate() -> None:
    lines = trade_table([row("news", 0.25), row("essay", 0.75)]).splitlines()
    assert [cells(line) for line in lines[2:]] == [[rate, "0.500", "0.750", "0.500"] for rate in RATES]


def test_hardened_figures_are_of_the_same_texts_or_refused() -> None:
    lines = hardened_table([row("news", 0.5)], [row("news", 0.75)]).splitlines()
    assert cells(lines[2]) == ["domain: news", *["0.500 → 0.750"] * 6]
    assert cells(lines[3]) == ["**mean**", *["**0.500 → 0.750**"] * 6]
    with pytest.raises(SystemExit, match="expected the same texts to judge both detectors"):
        hardened_table([row("news", 0.5)], [row("news", 0.5, human=41)])


def test_rivals_are_means_over_folds_and_a_protocol_that_was_not_run_is_empty() -> None:
    figures = pl.DataFrame(
        {
            "detector": ["a", "a", "a", "b", "b"],
            "protocol": ["domain", "domain", "corpus", "domain", "domain"],
            "slice": ["all", "all", "all", "all", "short"],
            "auroc": [0.5, 0.75, 0.9, 0.6, 0.1],
            "tpr@1%": [0.25, 0.75, 0.5, 0.1, 0.9],
        }
    )
    lines = rivals_table(figures).splitlines()
    assert [cells(line) for line in lines] == [
        ["detector", "domain", "corpus"],
        ["---", "---", "---"],
        ["a", "0.625 / 0.50", "0.900 / 0.50"],
        ["b", "0.600 / 0.10", ""],
    ]


def test_lengths_are_judged_by_other_domains_and_other_bands_with_the_caution_of_all() -> None:
    rng = np.random.default_rng(0)
    domains = np.repeat(["a", "b", "c"], 800)
    n_tokens = np.tile(np.repeat([30, 300], 400), 3)
    scores = rng.normal(size=2400) + (domains == "c") * 0.6 + (n_tokens == 30) * 0.3
    calibration = Calibration(scores, {}, domains, n_tokens)
    lines = length_table(calibration).splitlines()
    for line, length, start in zip(lines[2:], (30, 300), ("16 to 47", "192 and more"), strict=True):
        own = n_tokens == length
        shares = {}
        for name in "abc":
            others = [np.sort(scores[own & (domains == other)]) for other in "abc" if other != name]
            p_values = [
                calibration.caution * max((1 + (cell >= score).sum()) / (len(cell) + 1) for cell in others)
                for score in scores[own & (domains == name)]
            ]
            shares[name] = float(np.mean(np.array(p_values) <= 0.05))
        worst = max(shares, key=lambda name: shares[name])
        found = cells(line)
        assert found[:2] == [start, "1,200"]
        assert found[4] == f"{np.mean(list(shares.values())):.3f}"
        assert found[5].startswith(f"{worst} {shares[worst]:.3f} [")


def test_the_report_of_an_attack_on_other_weights_is_refused(tmp_path: Path) -> None:
    folder, told = PRETRAINED / DEFAULT_DETECTOR, tmp_path / "detectors.json"
    with pytest.raises(SystemExit, match="is missing: 'pawn attack' of this version writes it; attack again"):
        check_attacked(folder, told)
    own = load_detector(DEFAULT_DETECTOR).identity["weights_sha256"]
    for weights in (own, "f" * 64):
        record = {"detector": json.dumps({"weights_sha256": weights})}
        told.write_text(json.dumps({DEFAULT_DETECTOR: record}))
        if weights == own:
            check_attacked(folder, told)
            continue
        with pytest.raises(SystemExit, match=f"says {'f' * 64} for {DEFAULT_DETECTOR}: attack these"):
            check_attacked(folder, told)
