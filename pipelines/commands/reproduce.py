"""`pawn reproduce`."""

from typing import TYPE_CHECKING

import click

from pipelines.options import Number, experiment_option, tracking_uri_option

if TYPE_CHECKING:
    from pipelines.reproduction import Comparison


@click.command()
@click.argument("run_id")
@click.option("-o", "--output", default=None, metavar="DIR", help="New folder for output.  [default: reproduced-ID]")
@click.option(
    "--data",
    "elsewhere",
    multiple=True,
    metavar="PATH",
    help="Where the run's data are now: files, or folders to look through; recognised by hash. Repeat for more.",
)
@click.option(
    "--detector",
    "detectors",
    multiple=True,
    metavar="DIR",
    help="Where a detector that the run judged is now; recognised by its weights. Repeat for more.",
)
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False),
    default=None,
    metavar="DIR",
    help="Where relative paths of the recorded command are looked up.  [default: where it ran]",
)
@click.option(
    "--tolerance",
    type=Number(min=0),
    default=1e-3,
    show_default=True,
    help="How far figures may be apart; counts must be equal.",
)
@tracking_uri_option
@experiment_option
def command(
    run_id: str,
    output: str | None,
    elsewhere: tuple[str, ...],
    detectors: tuple[str, ...],
    folder: str | None,
    tolerance: float,
    tracking_uri: str | None,
    experiment: str,
) -> int:
    """Repeat a recorded run from what the store holds, and say whether its figures agree.

    The recorded command runs again in a new folder, on files that are the same to the byte, and is recorded as a run
    of its own. What differs in code and package versions is told first. Of figures, all are compared but what a run
    costs: time and memory. A store in a SQLite file may have been moved with the folder mlartifacts beside it.

    Exit codes: 0 the figures agree, 1 they do not or the run cannot be repeated, 2 wrong usage.

    \b
    Example:  pawn reproduce 3f2a91c0 -o again
              pawn reproduce 3f2a91c0 --data corpora --tracking-uri sqlite:///other/mlflow.db --detector runs/mine
    """
    from pathlib import Path

    from pipelines import reproduction
    from pipelines.recorded_runs import find_run, run_record
    from pipelines.repeated_command import Repetition
    from pipelines.run_store import connect_existing, store_uri

    def say(message: str) -> None:
        click.echo(message, err=True)

    store = store_uri(tracking_uri)
    client = connect_existing(store)
    run = find_run(client, experiment, run_id)
    record = run_record(client, run)
    out = reproduction.reproduction_folder(output, run)
    moved = reproduction.check_data(run, [Path(path) for path in elsewhere])
    for line in reproduction.changed_circumstances(record):
        say(f"Not the same: {line}")
    where = reproduction.working_folder(record, folder, say)
    again_store = reproduction.store_of_repetition(client, run, store, out, say)
    own = [Path(path) for path in detectors]
    words = Repetition(out, where.absolute(), moved, own, again_store, experiment).words(record)
    say(f"In {where}: pawn {' '.join(words)}")
    again = reproduction.repeat(words, where)
    repeated = find_run(connect_existing(again_store), experiment, again)
    for line in reproduction.changed_settings(run.parameters, repeated.parameters):
        say(f"Not the same: {line}")
    return _report(run.id, again, reproduction.compare(run.metrics, repeated.metrics, tolerance))


def _report(before: str, after: str, figures: "list[Comparison]") -> int:
    """Print the table and the verdict; returns the exit code."""
    rows: list[tuple[str, ...]] = [("FIGURE", "BEFORE", "AFTER", "DIFFERENCE", "TOLERANCE", "")]
    for one in figures:
        numbers = (one.before, one.after, one.difference, one.tolerance)
        shown = ["missing" if number is None else f"{number:.6g}" for number in numbers]
        rows.append((one.name, *shown, "" if one.agrees else "DIFFERS"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    differing = sum(not one.agrees for one in figures)
    if not figures:
        click.echo(f"Run {before} recorded no figures: it was repeated as {after}, and there is nothing to compare")
        return 1
    verdict = f"{differing} of {len(figures)} differ" if differing else f"all {len(figures)} agree"
    click.echo(f"The figures of run {before} and of its repetition {after}: {verdict}")
    return 1 if differing else 0
