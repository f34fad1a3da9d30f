"""`pawn attack`."""

from typing import Any

import click

from pipelines.options import (
    cache_directory,
    model_options,
    names_between_commas,
    progress_option,
    rates_option,
    ready_options,
    resamples_option,
    strength_options,
    tracking_options,
)


def _print_attacks() -> None:
    """One line for each attack."""
    from detect.adversarial.catalog import ENTRIES

    rows = [("NAME", "STRENGTH", "STRENGTH IS", "NEEDS", "SOURCE", "WHAT IT DOES")]
    rows += [(e.name, f"{e.strength:g}", e.strength_means, e.needs, e.source, e.summary) for e in ENTRIES]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@click.command()
@click.argument("detectors", nargs=-1, metavar="DETECTOR...")
@click.option("--list", "listed", is_flag=True, help="List the attacks, and do nothing else.")
@click.option("--data", "inputs", multiple=True, metavar="FILE", help="Labelled texts; repeat for more corpora.")
@click.option("-o", "--output", default=None, metavar="DIR", help="Folder for texts, scores, tables and pictures.")
@click.option(
    "--attacks",
    default="all",
    show_default=True,
    metavar="NAME,NAME,...",
    callback=names_between_commas,
    help="Attacks of --list.",
)
@strength_options
@click.option(
    "--calibrate-on",
    multiple=True,
    metavar="FILE",
    help="Labelled texts whose human ones fix the thresholds.  [default: half of the sources of --data]",
)
@click.option(
    "--calibration-texts",
    type=click.IntRange(min=1),
    default=500,
    show_default=True,
    help="Most human texts that fix thresholds.",
)
@click.option("--limit", type=click.IntRange(min=1), default=None, help="Most texts of each class.  [default: all]")
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of the choice and every attack."
)
@ready_options
@rates_option((0.01, 0.05), "False-positive rate of a threshold; repeat for more.")
@resamples_option
@model_options
@progress_option
@tracking_options
def command(
    listed: bool, shown: bool | None, cache: str | None, output: str | None, fprs: tuple[float, ...], **options: Any
) -> int:
    """Attack texts of both classes, and report what becomes of detectors that are ready.

    The report has a row for each attack, strength and detector, with and without characters put right before scoring,
    the worst case first; human texts are attacked too, so that false accusations show. Attacked texts and scores are
    kept: a stopped command goes on when it is repeated. Attacks that query a detector are made against each of them.

    \b
    Example:  pawn attack --list
              pawn attack pawn-smollm2-135m --data labelled.parquet --attacks homoglyph,word --limit 200 -o report
              pawn attack runs/mine log-likelihood --data labelled.parquet --strengths x0.5,x1,x2 -o report
    """
    if listed:
        _print_attacks()
        return 0
    if not options["detectors"] or not options["inputs"] or output is None:
        raise click.UsageError("give detectors, labelled texts with --data and a folder with -o, or --list alone")
    from pathlib import Path

    from pipelines.attack_run import AttackRequest, run_attack
    from pipelines.corpora import CorpusOptions
    from pipelines.progress import ProgressLine
    from pipelines.tracking import open_tracker

    line = ProgressLine(shown=shown)
    tracked, uri, experiment = (options.pop(name) for name in ("track", "tracking_uri", "experiment"))
    columns = {name: options.pop(name) for name in ("text_column", "id_column", "label_column", "input_format")}
    request = AttackRequest(
        output=Path(output),
        cache=cache_directory(cache),
        fprs=tuple(sorted(set(fprs))),
        columns=CorpusOptions(labelled=True, **columns),
        **options,
    )
    tracker = open_tracker(uri, enabled=tracked, experiment=experiment, say=line.say)
    found = run_attack(request, say=line.say, tracker=tracker)
    line.close()
    click.echo(f"{request.output / 'report.md'}: {len(found.figures):,} rows of figures, the worst case first")
    return 3 if found.unscored else 0
