"""What a red-team run found as a folder for people: `report.md` with tables, pictures and samples."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from detect.adversarial.quality import Limits, Quality
from detect.protocol import write_bytes
from pipelines.parts import disk_errors, publish
from pipelines.plots import COLOURS, HUMAN, MACHINE, save_plot
from pipelines.redteam import METHODS, RedTeam
from pipelines.redteam_judging import AFTER, BEFORE
from pipelines.tables import folds_table, title, to_markdown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipelines.redteam_run import RedTeamResult

SAMPLES = 8
FIGURES = ("auroc", "real_tpr@1%", "real_tpr@5%")
QUALITY_NAMES = {
    "perplexity": "perplexity (untuned generator)",
    "judge_perplexity": "perplexity (judge)",
    "order": "surprisal saved by word order",
    "distinct_1": "distinct-1",
    "distinct_2": "distinct-2",
    "distinct_3": "distinct-3",
    "repetition": "repeated 4-grams",
    "coherence": "likeness of a text's halves",
    "similarity": "similarity to the human continuation",
    "words": "words a text",
    "unscored": "without a score",
}
CURVE_NAMES = {
    "score": "detector's score of own texts",
    "perplexity": "perplexity (untuned generator)",
    "loss": "loss",
    "human_loss": "loss on human texts, nats a token",
    "margin": "margin of rewards",
    "accuracy": "share of pairs ordered right",
    "repetition": "repeated 4-grams",
}


def write_redteam_report(team: RedTeam, result: "RedTeamResult") -> list[Path]:
    """Write `report.md`, `plots/` and `judgements.parquet`; what was written.

    Raises:
        PawnError: when the disk refuses.
    """
    folder = team.request.output
    with disk_errors(folder, "then repeat the command: everything but the report is kept"):
        plots = folder / "plots"
        plots.mkdir(exist_ok=True)
        written: list[Path] = []
        for name, figure in (
            ("curves", curves(result.curve)),
            ("detection", detection_dots(result.figures)),
            ("scores", score_histogram(result.judgements, result.attacked)),
        ):
            written += save_plot(figure, plots / name)
        temporary = folder / ".judgements.tmp"
        result.judgements.write_parquet(temporary)
        publish(temporary, folder / "judgements.parquet")
        report = folder / "report.md"
        write_bytes(report, report_text(team, result).encode())
    return [report, folder / "judgements.parquet", plots]


def report_text(team: RedTeam, result: "RedTeamResult") -> str:
    """The report in Markdown."""
    request, limits = team.request, Limits()
    parts = [
        f"# Red team: {Path(request.generator).name} against {result.attacked}, method {request.method}",
        f"**{result.verdict.sentence}**",
        f"Method: {METHODS[request.method]}. {len(team.parts['train'])} prompts to learn from; compared on "
        f"{len(team.parts['heldout'])} others, {request.sampling.new_tokens} tokens a text, temperature "
        f"{request.sampling.temperature:g}, top-p {request.sampling.top_p:g}, seed {request.seed}.",
        *result.notes,
        "## Detection",
        f"Human continuations of the held-out prompts against the generator's, before and after. Real rates are at "
        f"thresholds fixed on {len(team.parts['calibration'])} other human continuations of the same length; intervals "
        "are 95%, by bootstrap over prompts.",
        to_markdown(_table(result.figures)),
        "![detection](plots/detection.png)",
        "![scores](plots/scores.png)",
        "## Quality of text",
        f"Similarity of meaning is the mean cosine of sentence vectors; continuations of different prompts have "
        f"{result.chance:.3f}. Word order saves the share by which the words as written are less surprising than the "
        "same words shuffled: much in prose, nothing in word salad, however rare the words are. The likeness of a "
        "text's halves is the cosine between its first and its second half: low where it loses its thread.",
        quality_table(result.qualities),
        f"Rule: a detector is evaded when its AUROC falls by {limits.auroc:g} or more while the texts keep within "
        f"limits: perplexity at most {limits.perplexity:g} times the higher of human and before, at least "
        f"{limits.perplexity_floor:g} times the lower; surprisal saved by word order at least {limits.order:g} times "
        f"the lower; likeness of a text's halves at least {limits.coherence:g} times the lower; repeated 4-grams at "
        f"most {limits.repetition:g} above the higher; distinct-2 at least {limits.distinct:g} times the lower; "
        f"similarity at most {limits.similarity:g} below that before; words at least {limits.words:g} times the lower; "
        f"at most {limits.unscored:.0%} without a score. "
        "Else the text became rubbish.",
        "## Training",
        "![curves](plots/curves.png)",
        *_retraining(result.retrained),
        "## Samples",
        *_samples(team),
    ]
    return "\n\n".join(parts) + "\n"


def _table(figures: pl.DataFrame) -> pl.DataFrame:
    """Figures as text, a row a detector and writer."""
    table = folds_table(figures, ("auroc", "real_fpr@1%", "real_tpr@1%", "real_fpr@5%", "real_tpr@5%"))
    return table.drop("protocol").rename({"left out": "texts"}).select("detector", pl.exclude("detector"))


def quality_table(qualities: Mapping[str, Quality]) -> str:
    """Figures of the texts as a Markdown table, a row a writer."""
    rows = {who: asdict(found) for who, found in qualities.items()}
    names = [name for name in QUALITY_NAMES if any(row[name] is not None for row in rows.values())]
    cells = [
        {"texts": who} | {QUALITY_NAMES[name]: "-" if row[name] is None else f"{row[name]:.3g}" for name in names}
        for who, row in rows.items()
    ]
    return to_markdown(pl.DataFrame(cells))


def _retraining(figures: pl.DataFrame | None) -> list[str]:
    """New detectors trained on texts before and after, and how far the latter's training is frustrated."""
    if figures is None:
        return []
    auroc = {(row["detector"], row["held_out"]): row["auroc"] for row in figures.iter_rows(named=True)}
    lines = []
    for name in dict.fromkeys(detector.partition(", ")[0] for detector, _ in auroc):
        usual, tuned = (auroc[f"{name}, trained on {kind}", kind] for kind in (BEFORE, AFTER))
        if usual is not None and tuned is not None:
            lines.append(
                f"- {name}: {usual:.3f} when trained and tested on texts before, {tuned:.3f} on texts after: training "
                f"is frustrated by {usual - tuned:.3f}."
            )
    return [
        "## New detectors",
        "Trained on human and machine continuations of the training prompts, the machine's written before the "
        "fine-tuning or after; each judged on held-out texts of both.",
        "\n".join(lines),
        to_markdown(_table(figures)),
    ]


def _samples(team: RedTeam) -> list[str]:
    """The first held-out prompts with what everybody wrote on them."""
    prompts = team.parts["heldout"][:SAMPLES]
    texts = {who: team.texts(f"heldout-{who}") for who in ("human", BEFORE, AFTER)}
    found = []
    for number, prompt in enumerate(prompts):
        lines = [f"**Prompt:** {_plain(prompt.text)}"]
        lines += [f"- *{who}:* {_plain(own[number].text)}" for who, own in texts.items()]
        found.append(lines[0] + "\n\n" + "\n".join(lines[1:]))
    return found


def _plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    return "".join(f"\\{c}" if c in "\\`*_[]<>#|" else c for c in text)


def curves(points: Sequence[Mapping[str, float]]) -> "Figure":
    """The training's curves over optimiser steps, a panel a figure."""
    from matplotlib.figure import Figure

    names = [name for name in CURVE_NAMES if any(name in point for point in points)]
    columns = min(3, max(len(names), 1))
    rows = -(-max(len(names), 1) // columns)
    figure = Figure(figsize=(3.6 * columns, 2.6 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    for axes, name in zip(panels, names, strict=False):
        own = sorted((point["step"], point[name]) for point in points if name in point)
        axes.plot(
            [step for step, _ in own], [value for _, value in own], "o-", color=COLOURS[0], markersize=3, linewidth=1.2
        )
        axes.set_title(CURVE_NAMES[name], fontsize=9)
        axes.set_xlabel("steps", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
    return figure


def detection_dots(figures: pl.DataFrame) -> "Figure":
    """Before and after of each detector, a panel a figure, with 95% intervals."""
    from matplotlib.figure import Figure

    detectors = figures["detector"].unique(maintain_order=True).to_list()
    shown = [name for name in FIGURES if figures[name].is_not_null().any()]
    figure = Figure(figsize=(3.2 * len(shown) + 1.5, 0.45 * len(detectors) + 1.5), layout="constrained")
    panels = figure.subplots(1, len(shown), squeeze=False, sharey=True)[0]
    for axes, name in zip(panels, shown, strict=True):
        for shift, (held_out, colour) in zip((-0.12, 0.12), ((BEFORE, COLOURS[0]), (AFTER, COLOURS[3])), strict=True):
            own = figures.filter(held_out=held_out)
            where = np.array([detectors.index(detector) for detector in own["detector"]]) + shift
            value, low, high = (own[name + end].cast(pl.Float64).to_numpy() for end in ("", "_low", "_high"))
            bars = np.nan_to_num(np.maximum([value - low, high - value], 0))
            axes.errorbar(
                value, where, xerr=bars, linestyle="none", marker="o", markersize=4, color=colour, label=held_out
            )
        axes.set_title(title(name), fontsize=9)
        axes.set(xlim=(-0.03, 1.03), ylim=(len(detectors) - 0.5, -0.5))
        axes.set_yticks(range(len(detectors)), detectors, fontsize=8)
        axes.grid(alpha=0.3)
    panels[-1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)
    return figure


def score_histogram(judgements: pl.DataFrame, detector: str) -> "Figure":
    """How the attacked detector's scores of human texts and of texts before and after lie."""
    from matplotlib.figure import Figure

    test = judgements.filter(detector=detector, part="test")
    groups = {
        "human": (test.filter(label=0, held_out=BEFORE), HUMAN),
        BEFORE: (test.filter(label=1, held_out=BEFORE), MACHINE),
        AFTER: (test.filter(label=1, held_out=AFTER), COLOURS[2]),
    }
    scores = test["score"].to_numpy()
    bins = np.linspace(scores.min(), max(scores.max(), scores.min() + 1e-9), 31).tolist()
    figure = Figure(figsize=(5.4, 3.2), layout="constrained")
    axes = figure.subplots()
    for name, (own, colour) in groups.items():
        axes.hist(own["score"].to_numpy(), bins, histtype="stepfilled", alpha=0.45, color=colour, label=name)
    axes.set(xlabel=f"score of {detector}", ylabel="texts")
    axes.legend(frameon=False, fontsize=9)
    return figure
