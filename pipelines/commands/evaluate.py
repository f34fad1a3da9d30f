"""`pawn evaluate`."""

from typing import Any

import click
from click.core import ParameterSource

from pipelines.options import (
    cache_directory,
    model_options,
    progress_option,
    rates_option,
    ready_options,
    resamples_option,
    tracking_options,
)


@click.command()
@click.option(
    "--detector",
    "detectors",
    multiple=True,
    required=True,
    metavar="NAME|DIR|MODULE:CLASS",
    help="A detector of 'pawn detectors' that is ready, a folder, or a class; repeat to compare.",
)
@click.option("--data", "inputs", multiple=True, metavar="FILE", help="Labelled texts; repeat for more corpora.")
@click.option(
    "--raid",
    default=None,
    metavar="CSV",
    help="RAID's test file, which has no labels: write a leaderboard submission of the one detector to DIR instead. "
    "Its features are kept only where --cache says.",
)
@click.option("--contact", default="", help="Of the submission: whom the leaderboard's keepers can ask.")
@click.option("-o", "--output", required=True, metavar="DIR", help="Folder for scores, tables and pictures.")
@click.option(
    "--calibrate-on",
    multiple=True,
    metavar="FILE",
    help="Labelled texts that fix the thresholds.  [default: each detector's own calibration]",
)
@ready_options
@rates_option((0.001, 0.01, 0.05), "False-positive rate that figures are given at; repeat for more.")
@resamples_option
@model_options
@progress_option
@tracking_options
def command(
    shown: bool | None,
    cache: str | None,
    output: str,
    fprs: tuple[float, ...],
    raid: str | None,
    contact: str,
    **options: Any,
) -> int:
    """Judge detectors that are ready on labelled texts that they never saw.

    Thresholds are those of each detector's own calibration or of --calibrate-on, never of the texts judged. Every
    figure comes with a 95% interval, whole and by domain, generator, attack and length.

    Exit codes: 0 done, 1 failure, also of one of several detectors (the others are reported), 2 wrong usage, 3 done
    but some rows have no score.

    \b
    Example:  pawn evaluate --detector pawn-smollm2-135m --detector log-likelihood --data labelled.parquet -o report
              pawn evaluate --detector pawn-smollm2-135m --raid test.csv --contact me@example.org -o my-submission
    """
    if (raid is None) == (not options["inputs"]):
        raise click.UsageError("give labelled texts with --data, or RAID's test file with --raid")
    _check_submission(raid, contact)
    if raid is not None:
        return _submission(raid, contact, output, cache, shown, options)
    from pathlib import Path

    from pipelines.corpora import CorpusOptions
    from pipelines.evaluation import EvaluationRequest, run_evaluation
    from pipelines.progress import ProgressLine, RowsLine
    from pipelines.reports import print_means
    from pipelines.tracking import open_tracker

    line = ProgressLine(shown=shown)
    rows_line = RowsLine(line)
    tracked, uri, experiment = (options.pop(name) for name in ("track", "tracking_uri", "experiment"))
    columns = {name: options.pop(name) for name in ("text_column", "id_column", "label_column", "input_format")}
    request = EvaluationRequest(
        output=Path(output),
        cache=cache_directory(cache),
        fprs=tuple(sorted(set(fprs))),
        columns=CorpusOptions(labelled=True, **columns),
        **options,
    )
    tracker = open_tracker(uri, enabled=tracked, experiment=experiment, say=line.say)
    found = run_evaluation(
        request, say=line.say, progress=lambda what, rows, total: rows_line(rows, total, 0), tracker=tracker
    )
    line.close()
    print_means(found.means, request.output)
    return 1 if found.failed else 3 if found.unscored else 0


def _check_submission(raid: str | None, contact: str) -> None:
    """Refuse what has no meaning for RAID's test file, which has columns of its own and no labels, or without it."""
    if raid is None:
        if contact:
            raise click.UsageError("--contact is of a submission: give it with --raid")
        return
    context = click.get_current_context()
    for name in ("fprs", "resamples", "calibrate_on", "text_column", "id_column", "label_column", "input_format"):
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            option = "--fpr" if name == "fprs" else f"--{name.replace('_', '-')}"
            raise click.UsageError(f"{option} does nothing with --raid: leave it out")


def _submission(
    raid: str, contact: str, output: str, cache: str | None, shown: bool | None, options: dict[str, Any]
) -> int:
    from pathlib import Path

    from pipelines.progress import ProgressLine, RowsLine
    from pipelines.raid import RaidMetadata, raid_submission
    from pipelines.scoring import ScoringSettings
    from pipelines.tracking import open_tracker

    if len(options["detectors"]) != 1:
        raise click.UsageError(f"a submission is of one detector, got {len(options['detectors'])}")
    (detector,) = options["detectors"]
    settings = ScoringSettings(
        detector=detector,
        cache=None if cache is None else Path(cache),
        **{name: options[name] for name in ("backbone", "max_length", "device", "observer")},
    )
    line = ProgressLine(shown=shown)
    metadata = RaidMetadata(detector_name=Path(detector).name, contact_info=contact)
    tracker = open_tracker(
        options["tracking_uri"], enabled=options["track"], experiment=options["experiment"], say=line.say
    )
    found = raid_submission(
        raid, settings, Path(output), metadata, say=line.say, on_progress=RowsLine(line), tracker=tracker
    )
    line.close()
    click.echo(f"{found.rows:,} texts in {output}; {found.unscored:,} without a score are given 0")
    return 3 if found.unscored else 0
