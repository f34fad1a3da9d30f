"""`pawn benchmark`."""

import click

from pipelines.options import cache_directory, cache_option, device_option, progress_option, tracking_options


@click.command()
@click.argument("config", metavar="CONFIG")
@click.option("-o", "--output", required=True, metavar="DIR", help="Folder for scores, tables and pictures.")
@cache_option
@device_option
@progress_option
@tracking_options
def command(
    config: str,
    output: str,
    cache: str | None,
    device: str | None,
    shown: bool | None,
    track: bool,
    tracking_uri: str | None,
    experiment: str,
) -> int:
    """Train and judge detectors by the protocols of a YAML file: in-domain, left-out values, curves.

    CONFIG names corpora (files), detectors, protocols (in-domain, corpus, domain, generator, attack, length, size) and
    seeds; benchmarks/quality.yaml is one. What is judged is kept: a killed run goes on when the command is repeated.

    Exit codes: 0 done, 1 failure, 2 wrong usage, 3 done but some folds could not be judged (the report says which).

    \b
    Example:  pawn benchmark benchmarks/quality.yaml -o report
    """
    from pathlib import Path

    from pipelines.benchmark import run_benchmark
    from pipelines.benchmark_config import BenchmarkConfig
    from pipelines.progress import ProgressLine, RowsLine, TrainingLine
    from pipelines.reports import print_means
    from pipelines.tracking import open_tracker

    line = ProgressLine(shown=shown)
    found = run_benchmark(
        BenchmarkConfig.read(Path(config)),
        Path(output),
        cache_directory(cache),
        device=device,
        say=line.say,
        rows_line=RowsLine(line),
        progress=TrainingLine(line),
        tracker=open_tracker(tracking_uri, enabled=track, experiment=experiment, say=line.say),
    )
    line.close()
    print_means(found.means, Path(output))
    return 3 if found.left_out else 0
