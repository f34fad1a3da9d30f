"""Writes the model card of a detector from its own record, and from reports of `pawn benchmark` and `pawn attack`.

python -m benchmarks.model_card --detector DIR --benchmark quality/figures.csv --attacks stress/figures.csv \
        --unhardened DIR
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import polars as pl
from scipy.stats import binomtest

from detect.calibration import BAND_STARTS, Calibration, band_of
from detect.catalog import load_detector
from detect.protocol import read_card, write_bytes
from features.documents import MIN_TOKENS
from pipelines.figures import rate_name
from pipelines.robustness_report import DETECTORS_FILE
from pipelines.training_figures import FPRS, TRADE_FPRS

CARD = Path(__file__).with_name("model_card.md")
FIGURES = ("auroc", *(f"{kind}@{fpr}" for fpr in ("1%", "5%") for kind in ("tpr", "real fpr", "real tpr")))
ATTACKED = ("auroc", "real_tpr@1%", "real_fpr@1%", "real_tpr@5%", "real_fpr@5%")
NORMALISED = ("auroc", "real_tpr@1%", "real_fpr@1%", "real_fpr@5%")


def main() -> None:
    """Parse and write README.md into the detector's folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", type=Path, required=True)
    parser.add_argument("--benchmark", type=Path, required=True, help="figures.csv of 'pawn benchmark'")
    parser.add_argument("--attacks", type=Path, required=True, help="figures.csv of 'pawn attack'")
    parser.add_argument(
        "--unhardened", type=Path, required=True, help="the same recipe without texts of attackers, in the report too"
    )
    arguments = parser.parse_args()
    for folder in (arguments.detector, arguments.unhardened):
        check_attacked(folder, arguments.attacks.with_name(DETECTORS_FILE))
    card = render(
        arguments.detector, pl.read_csv(arguments.benchmark), pl.read_csv(arguments.attacks), arguments.unhardened
    )
    write_bytes(arguments.detector / "README.md", card.encode())


def check_attacked(folder: Path, told: Path) -> None:
    """Refuse the report of an attack on other weights than a folder's, whatever both are called."""
    name, expected = read_card(folder)["name"], load_detector(str(folder)).identity["weights_sha256"]
    if not told.is_file():
        raise SystemExit(f"{told} is missing: 'pawn attack' of this version writes it; attack again")
    found = json.loads(told.read_text())
    weights = json.loads(found[name]["detector"])["weights_sha256"] if name in found else "no such detector"
    if weights != expected:
        raise SystemExit(f"{folder} has weights {expected}, {told} says {weights} for {name}: attack these")


def render(folder: Path, benchmark: pl.DataFrame, attacks: pl.DataFrame, unhardened: Path) -> str:
    """The card: the template `model_card.md` with every figure filled in from what was measured."""
    record, before, calibration = read_card(folder), read_card(unhardened), Calibration.load(folder)
    training, backbone = record["training"], record["backbone"]
    if "left_out_domains" not in training or "members" not in training["config"]:
        raise SystemExit(f"{folder}: the card is for an ensemble that was calibrated on left-out domains")
    config = training["config"]
    own = [
        {"protocol": "in-domain", "held_out": "nothing"} | training["test"],
        *({"protocol": "domain"} | row for row in training["left_out_domains"]),
    ]
    return CARD.read_text().format(
        name=record["name"],
        backbone=backbone["name"],
        codec=backbone["codec"],
        dtype=backbone["fingerprint"]["dtype"],
        max_length=backbone["fingerprint"]["max_length"],
        members=", ".join(f"`{name}`" for name in config["members"]),
        megabytes=f"{sum(file.stat().st_size for file in folder.rglob('*') if file.is_file()) / 1e6:.1f}",
        corpora="\n".join(f"- `{corpus['file']}`, SHA-256 `{corpus['sha256']}`" for corpus in training["corpora"]),
        texts=", ".join(f"{count:,} {part}" for part, count in training["texts"].items()),
        config=json.dumps(config, sort_keys=True),
        calibration=f"{len(calibration.scores):,}",
        calibration_texts=calibration.provenance["texts"],
        bands=", ".join(map(str, BAND_STARTS[1:])),
        caution=calibration.caution,
        worst=f"{worst_ratio(calibration):.1f}",
        smallest_fpr=f"{calibration.smallest_fpr:.2%}",
        own=own_table(own),
        trade=trade_table(training["left_out_domains"]),
        lengths=length_table(calibration),
        rivals=rivals_table(benchmark),
        hardened=hardened_table(before["training"]["left_out_domains"], training["left_out_domains"]),
        attacks=attack_table(attacks, record["name"], before["name"]),
        attacked_texts=attacks.filter(pl.col("detector") == record["name"])["machines"].max(),
    )


def own_table(rows: Sequence[dict[str, Any]]) -> str:
    """What the detector's own training measured: one line a fold, then the mean over left-out domains."""
    lines = [f"| left out | human / machine | {' | '.join(FIGURES)} |", f"|---|---|{'---|' * len(FIGURES)}"]
    for row in rows:
        figures = " | ".join(f"{row[name]:.3f}" for name in FIGURES)
        lines.append(f"| {row['protocol']}: {row['held_out']} | {row['human']} / {row['machine']} | {figures} |")
    domains = [row for row in rows if row["protocol"] == "domain"]
    figures = " | ".join(f"**{mean(row[name] for row in domains):.3f}**" for name in FIGURES)
    return "\n".join([*lines, f"| **domain: mean** |  | {figures} |"])


def trade_table(rows: Sequence[dict[str, Any]]) -> str:
    """What each rate asked for gives over left-out domains: human texts accused in the mean and at worst, and found."""
    lines = ["| rate asked for | real FPR, mean | worst domain | real TPR, mean |", "|---|---|---|---|"]
    for fpr in TRADE_FPRS:
        rate = rate_name(fpr)
        real = {kind: [row[f"real {kind}@{rate}"] for row in rows] for kind in ("fpr", "tpr")}
        lines.append(f"| {rate} | {mean(real['fpr']):.3f} | {max(real['fpr']):.3f} | {mean(real['tpr']):.3f} |")
    return "\n".join(lines)


def worst_ratio(calibration: Calibration) -> float:
    """How many times as often as asked (1%, 5%) a domain is flagged at some length by the others' thresholds."""
    return max(
        float((found <= fpr).mean()) / fpr
        for by_domain in _by_band(calibration)
        for found in by_domain.values()
        for fpr in FPRS
    )


def length_table(calibration: Calibration) -> str:
    """Real FPR of human texts by band of length: each domain by the thresholds of the others, and of other lengths.

    From the scores that a calibration on left-out domains keeps, so of the very detector that has it.
    """
    assert calibration.n_tokens is not None  # as calibrations on left-out domains have, and domains
    bands = band_of(calibration.n_tokens)
    lines = [
        f"| tokens | human texts | {' | '.join(f'FPR@{fpr:.0%}, mean | worst domain' for fpr in FPRS)} | "
        f"{' | '.join(f'by other lengths: FPR@{fpr:.0%}' for fpr in FPRS)} |",
        f"|---|---|{'---|' * 3 * len(FPRS)}",
    ]
    judged = _by_band(calibration)
    for band, name in enumerate(band_names()):
        own, by_domain = bands == band, judged[band]
        if not own.any():
            continue
        other_lengths = _p_values(calibration, ~own, own)
        cells = []
        for fpr in FPRS:
            accused = {domain: int((found <= fpr).sum()) for domain, found in by_domain.items()}
            worst = max(accused, key=lambda domain: accused[domain] / len(by_domain[domain]))
            average = mean(accused[domain] / len(found) for domain, found in by_domain.items())
            cells.append(f"{average:.3f} | {worst} {share(accused[worst], len(by_domain[worst]))}")
        cells += [share(int((other_lengths <= fpr).sum()), len(other_lengths)) for fpr in FPRS]
        lines.append(f"| {name} | {own.sum():,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _by_band(calibration: Calibration) -> list[dict[str, np.ndarray]]:
    """Of each band, the p-values of each domain's texts among those of the other domains."""
    assert calibration.domains is not None
    assert calibration.n_tokens is not None
    bands, found = band_of(calibration.n_tokens), []
    for band in range(len(BAND_STARTS)):
        own = bands == band
        found.append(
            {
                domain: _p_values(calibration, calibration.domains != domain, own & (calibration.domains == domain))
                for domain in np.unique(calibration.domains[own])
            }
        )
    return found


def _p_values(calibration: Calibration, others: np.ndarray, own: np.ndarray) -> np.ndarray:
    """p-values of some of a calibration's texts among others of them, by boolean masks, with the caution of all."""
    assert calibration.domains is not None
    assert calibration.n_tokens is not None
    groups = (calibration.domains[others], calibration.n_tokens[others])
    among = Calibration(calibration.scores[others], {}, *groups, calibration.caution)
    return among.p_values(calibration.scores[own], calibration.n_tokens[own])


def band_names() -> list[str]:
    """The bands of length for people: "48 to 95"."""
    upper = [f" to {start - 1}" for start in BAND_STARTS[1:]] + [" and more"]
    return [f"{start or MIN_TOKENS}{end}" for start, end in zip(BAND_STARTS, upper, strict=True)]


def share(count: int, texts: int) -> str:
    """A share with its 95% interval (Wilson 1927)."""
    found = binomtest(count, texts).proportion_ci(method="wilson")
    return f"{count / texts:.3f} [{found.low:.3f}-{found.high:.3f}]"


def rivals_table(figures: pl.DataFrame) -> str:
    """Mean AUROC and TPR at 1% of each detector of a benchmark over the folds of each protocol."""
    whole = figures.filter(pl.col("slice") == "all")
    means = whole.group_by("detector", "protocol", maintain_order=True).agg(pl.col("auroc", "tpr@1%").mean())
    protocols = means["protocol"].unique(maintain_order=True).to_list()
    lines = [f"| detector | {' | '.join(protocols)} |", f"|---|{'---|' * len(protocols)}"]
    for (detector,), own in means.partition_by("detector", as_dict=True, maintain_order=True).items():
        found = {row["protocol"]: f"{row['auroc']:.3f} / {row['tpr@1%']:.2f}" for row in own.iter_rows(named=True)}
        lines.append(f"| {detector} | {' | '.join(found.get(protocol, '') for protocol in protocols)} |")
    return "\n".join(lines)


def hardened_table(before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]]) -> str:
    """Figures over left-out domains of the recipe without texts of attackers, and with them, on the same texts."""
    names = ("auroc", "tpr@1%", "real fpr@1%", "real tpr@1%", "real fpr@5%", "real tpr@5%")
    lines = [f"| left out | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for row, other in zip(before, after, strict=True):
        judged = [[found[key] for key in ("held_out", "human", "machine")] for found in (row, other)]
        if judged[0] != judged[1]:
            raise SystemExit(f"expected the same texts to judge both detectors, got {judged[0]} and {judged[1]}")
        cells = " | ".join(f"{row[name]:.3f} → {other[name]:.3f}" for name in names)
        lines.append(f"| domain: {row['held_out']} | {cells} |")
    means = [[mean(row[name] for row in rows) for rows in (before, after)] for name in names]
    return "\n".join([*lines, f"| **mean** | {' | '.join(f'**{one:.3f} → {two:.3f}**' for one, two in means)} |"])


def attack_table(figures: pl.DataFrame, name: str, before: str) -> str:
    """Figures under each attack, of the same recipe without texts of attackers and of the detector.

    Texts are read as they are, and then with look-alike and invisible characters put right, as users' texts are.
    """
    columns = [f"{figure}, without → with" for figure in ATTACKED] + [f"normalised: {figure}" for figure in NORMALISED]
    lines = [f"| attack | edit distance | {' | '.join(columns)} |", f"|---|---|{'---|' * len(columns)}"]
    for attack, strength in figures.select("attack", "strength").unique(maintain_order=True).rows():
        rows = figures.filter(pl.col("attack") == attack, pl.col("strength").eq_missing(strength))
        raw = [_only(rows, detector, "none") for detector in (before, name)]
        mended = _only(rows, name, "normalised")
        cells = [f"{raw[0][figure]:.3f} → {raw[1][figure]:.3f}" for figure in ATTACKED]
        cells += [f"{mended[figure]:.3f}" for figure in NORMALISED]
        edits = "" if raw[1]["edit_distance"] is None else f"{raw[1]['edit_distance']:.3f}"
        lines.append(f"| {attack}{'' if strength is None else f' {strength:g}'} | {edits} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _only(rows: pl.DataFrame, detector: str, defence: str) -> dict[str, Any]:
    """The one row of a detector and a defence."""
    return rows.filter(pl.col("detector") == detector, pl.col("defence") == defence).row(0, named=True)


if __name__ == "__main__":
    main()
