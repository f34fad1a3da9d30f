"""`pawn runs`."""

import click

from pipelines.options import experiment_option, tracking_uri_option

KINDS = ("extract", "train", "evaluate", "benchmark", "attack", "harden", "redteam")


@click.command()
@click.argument("run_ids", nargs=-1, metavar="[RUN_ID...]")
@click.option("-n", "--last", type=click.IntRange(min=1), default=20, show_default=True, help="Newest runs to list.")
@click.option("--kind", type=click.Choice(KINDS), default=None, help="Only runs of this.")
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME",
    help="Show this metric; repeat for more.  [default: AUROC and rates at 1%; all where runs are compared]",
)
@tracking_uri_option
@experiment_option
def command(
    run_ids: tuple[str, ...],
    last: int,
    kind: str | None,
    metrics: tuple[str, ...],
    tracking_uri: str | None,
    experiment: str,
) -> None:
    """List recorded runs, newest first; or show those named, side by side.

    RUN_ID is the id of a run, or how it begins. Side by side, settings in which runs differ are marked '*', and
    metrics of child runs have the child's name before them.

    \b
    Example:  pawn runs --kind train --metric auroc
              pawn runs 3f2a91c0 7be01d44
    """
    from pipelines.recorded_runs import comparison, find_run, runs_table, top_level_runs
    from pipelines.run_store import connect_existing, store_uri

    client = connect_existing(store_uri(tracking_uri))
    if run_ids:
        rows = comparison([find_run(client, experiment, run_id) for run_id in run_ids], metrics)
    else:
        rows = runs_table(top_level_runs(client, experiment, kind=kind, last=last), metrics)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
