"""`pawn detectors`."""

import click


@click.command()
def command() -> None:
    """List the detectors that can be named, one a line.

    \b
    Example:  pawn detectors
    """
    from detect.catalog import catalog

    entries = catalog()
    width = max(len(entry.name) for entry in entries)
    for entry in entries:
        click.echo(f"{entry.name:<{width}}  {entry.kind:<9}  {entry.summary}")
