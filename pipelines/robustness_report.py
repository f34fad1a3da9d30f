"""Scores and figures of a stress test -> the folder that a person reads: tables, pictures, samples."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from detect.adversarial.catalog import attack_entry
from detect.protocol import write_bytes
from pipelines.cells import KEPT, publish_frame
from pipelines.figures import rate_name
from pipelines.parts import disk_errors
from pipelines.robustness_figures import CLEAN
from pipelines.robustness_plots import PANEL_TITLES, write_robustness_plots
from pipelines.tables import ABSENT, decimals, interval, title, to_markdown

DETECTORS_FILE = "detectors.json"
_NAMES = ("detector", "texts", "attack", "what it does", "strength is")

NOTES = """\
Thresholds are fixed on clean human texts that are not among those judged. AUROC sets attacked machine texts against
clean human ones (and, in its own column, against attacked human ones). TPR and FPR are the shares of attacked machine
and of attacked human texts that are flagged. Success is the share of the machine texts flagged before the attack that
are not flagged after it. Edits are the mean Levenshtein distance of characters over the length of the longer text.
"Normalised" means that every text, clean ones and those that fix thresholds too, had look-alike and invisible
characters put right before it was scored. Intervals are 95%, by bootstrap over sources. The worst is what has the
lowest AUROC, of the two: an attack that makes every text look machine-written is no evasion, but it accuses people."""


def write_robustness_report(
    detectors: Mapping[str, Mapping[str, str]],
    scored: pl.DataFrame,
    table: pl.DataFrame,
    samples: str,
    folder: Path,
    heading: str,
    fprs: Sequence[float],
) -> list[Path]:
    """Write scores, figures, samples, pictures, `detectors.json` and `report.md`; what was written.

    Args:
        detectors: what each was, as `what_scores` tells it: names of folders come to stand for others.
        scored: rows of `SCORED_SCHEMA`.
        table: what `robustness_table` makes of them.
        samples: what `samples_text` gives.
        folder: made where it is not there.
        heading: of the report.
        fprs: false-positive rates of the thresholds.

    Raises:
        PawnError: when the disk refuses.
    """
    publish_frame(scored, folder / "scores.parquet")
    named = table.with_columns(shown=shown())
    order = worst_first(named)
    with disk_errors(folder, KEPT):
        plots = write_robustness_plots(named, order, folder / "plots", _decision(table, fprs))
        write_bytes(folder / "figures.csv", table.write_csv().encode())
        write_bytes(folder / "samples.md", samples.encode())
        write_bytes(folder / DETECTORS_FILE, (json.dumps(detectors, indent=2) + "\n").encode())
        report = _report(heading, scored, named, fprs, [path for path in plots if path.suffix == ".png"])
        write_bytes(folder / "report.md", report.encode())
    names = ("scores.parquet", "figures.csv", "samples.md", DETECTORS_FILE, "report.md")
    return [*(folder / name for name in names), *plots]


def shown() -> pl.Expr:
    """Attack, strength and target of a row, for people."""
    strength = pl.col("strength").map_elements(lambda value: f" {value:g}", return_dtype=pl.String).fill_null("")
    target = pl.format(" against {}", "target").fill_null("")
    name = pl.when(pl.col("attack") == CLEAN).then(pl.lit("clean")).otherwise(pl.col("attack"))
    return pl.concat_str(name, strength, target)


def worst_first(named: pl.DataFrame) -> list[str]:
    """The attacks of a table with a column `shown`, by the worst for any detector (`_worst`); the clean texts first."""
    plain = named.filter(defence="none", attack=CLEAN)["shown"].unique().to_list()
    attacked = named.filter(pl.col("defence") == "none", pl.col("attack") != CLEAN)
    lowest = attacked.group_by("shown", maintain_order=True).agg(worst=_worst().min()).sort("worst", nulls_last=True)
    return [*plain, *lowest["shown"]]


def _worst() -> pl.Expr:
    """The lower of the two AUROCs: an attack that makes all texts look machine-written is bad too."""
    return pl.min_horizontal("auroc", "auroc_attacked_human")


def _decision(table: pl.DataFrame, fprs: Sequence[float]) -> str:
    """The smallest rate that thresholds could be had at, as columns name it; the largest where none could."""
    rates = [rate_name(fpr) for fpr in sorted(fprs)]
    return next((rate for rate in rates if table[f"real_tpr@{rate}"].is_not_null().any()), rates[-1])


def _report(
    heading: str, scored: pl.DataFrame, named: pl.DataFrame, fprs: Sequence[float], pictures: list[Path]
) -> str:
    clean = scored.filter(attack=CLEAN, detector=scored["detector"][0])
    humans, machines = (len(clean.filter(part="judged", label=label)) for label in (0, 1))
    fixing = len(clean.filter(part="calibration"))
    fpr = _decision(named, fprs)
    parts = [
        f"# {heading}",
        f"{humans:,} human and {machines:,} machine texts were attacked; {fixing:,} other human ones fix thresholds.",
        NOTES,
        *dict.fromkeys(note for note in named["note"] if note),
        "## Worst cases",
        to_markdown(worst_cases(named, fpr), _NAMES),
        "## Pictures",
        "Brighter is better.",
        *(f"![{path.stem}](plots/{path.name})" for path in pictures),
        "## Every attack, worst first",
    ]
    for (detector,), own in named.partition_by("detector", as_dict=True, maintain_order=True).items():
        parts += [f"### {detector}", to_markdown(detector_table(own, fprs), _NAMES)]
    parts += ["## The attacks", to_markdown(_attacks(named), _NAMES)]
    parts += [
        f"Attacked texts to read: [samples](samples.md). What each detector was: [{DETECTORS_FILE}]({DETECTORS_FILE})"
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def worst_cases(named: pl.DataFrame, fpr: str) -> pl.DataFrame:
    """For each detector and defence, as text: clean figures, and the worst of any attack by AUROC, by TPR and by FPR.

    Args:
        named: what `robustness_table` gives, with a column `shown`.
        fpr: the rate of the thresholds, as columns name it.
    """
    rows = []
    for (detector, defence), own in named.partition_by(
        "detector", "defence", as_dict=True, maintain_order=True
    ).items():
        clean, attacked = own.filter(attack=CLEAN), own.filter(pl.col("attack") != CLEAN)
        row = {"detector": str(detector), "texts": PANEL_TITLES[str(defence)]}
        for name in ("auroc", "auroc_attacked_human", f"real_tpr@{fpr}", f"real_fpr@{fpr}"):
            row[title(name)] = _worsened(clean[name].item(), attacked.drop_nulls(name), name)
        rows.append(row)
    return pl.DataFrame(rows)


def _worsened(before: float | None, attacked: pl.DataFrame, name: str) -> str:
    """A figure of clean texts, and of the attack that it is worst for."""
    higher_is_worse = name.startswith("real_fpr")
    if before is None or not len(attacked):
        return _value(before)
    worst = attacked.sort(name, descending=higher_is_worse).row(0, named=True)
    if worst[name] == before or (worst[name] < before) == higher_is_worse:
        return f"{_value(before)} → no worse"
    return f"{_value(before)} → {_value(worst[name])} ({worst['shown']})"


def detector_table(own: pl.DataFrame, fprs: Sequence[float]) -> pl.DataFrame:
    """The rows of one detector as text, clean texts first, then by rising AUROC, with normalised figures beside."""
    rates = [rate_name(fpr) for fpr in fprs]
    names = [f"{kind}@{rate}" for rate in rates for kind in ("real_tpr", "real_fpr", "success")]
    plain = own.filter(defence="none").sort(pl.col("attack") != CLEAN, _worst(), nulls_last=True)
    after = own.filter(defence="normalised").select(
        "shown", *(pl.col(name).alias(f"{name} n") for name in ("auroc", *names))
    )
    both = plain.join(after, on="shown", how="left", maintain_order="left")
    columns = {
        "attack": pl.col("shown"),
        "AUROC": interval("auroc"),
        "humans attacked too": _text("auroc_attacked_human"),
    }
    columns |= {title(name): _text(name) for name in names}
    columns |= {"edits": _text("edit_distance"), "edits, human": _text("edit_distance_human")}
    columns |= {
        "queries": pl.col("queries")
        .map_elements(lambda value: f"{value:.0f}", return_dtype=pl.String)
        .fill_null(ABSENT)
    }
    kept = [name for name in ("auroc", *names) if not name.startswith("success")]
    columns |= {f"normalised: {title(name)}": _text(f"{name} n") for name in kept}
    if both["unscored"].sum():
        columns |= {"without a score": pl.col("unscored").cast(pl.String)}
    return both.select(**columns)


def _attacks(named: pl.DataFrame) -> pl.DataFrame:
    attacks = named.filter(pl.col("queries").is_not_null())["attack"].unique(maintain_order=True)
    rows = [
        {
            "attack": entry.name,
            "what it does": entry.summary,
            "strength is": entry.strength_means,
            "usual": f"{entry.strength:g}",
        }
        for entry in map(attack_entry, attacks)
    ]
    return pl.DataFrame(rows, schema=["attack", "what it does", "strength is", "usual"])


def _text(name: str) -> pl.Expr:
    return decimals(name).fill_null(ABSENT)


def _value(value: Any) -> str:
    return ABSENT if value is None else f"{value:.3f}"
