"""`pawn score`."""

from typing import Any

import click

from pipelines.options import input_options, model_options, normalise_option, observer_option, progress_option


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@click.option(
    "-o",
    "--output",
    default="-",
    show_default="CSV to standard output",
    help="File to write: .parquet, .csv or .jsonl.",
)
@input_options
@click.option(
    "--carry",
    multiple=True,
    metavar="COLUMN",
    help="Copy this input column to the output; repeat for more, '*' for all.",
)
@click.option(
    "--detector",
    default="pawn-smollm2-135m",
    show_default=True,
    help="Name of 'pawn detectors', a folder that 'pawn train' wrote, or module:Class of your own.",
)
@click.option("--backbone", default=None, help="Language model.  [default: the detector's own]")
@observer_option
@click.option(
    "--fpr",
    type=float,
    default=None,
    help="Share of human texts that may be flagged.  [default: 0.01]",
)
@click.option(
    "--cache",
    default="none",
    show_default=True,
    metavar="DIR|none",
    help="Keep features here, and take from here what is there already.",
)
@normalise_option
@model_options
@progress_option
def command(
    inputs: tuple[str, ...],
    output: str,
    text_column: str,
    id_column: str | None,
    input_format: str | None,
    carry: tuple[str, ...],
    cache: str,
    shown: bool | None,
    **settings: Any,
) -> int:
    """Score texts: one row out for each row in, in the same order.

    INPUT is a Parquet, CSV, TSV, JSONL or text file (.gz, .zst and .bz2 too), a folder, a glob, or - for standard
    input. Columns of the result: id, status, n_tokens, truncated, score (higher is more machine-like), p_value
    (share of human calibration texts that score at least as high), is_machine (p_value <= fpr).

    A killed run continues when the same command is repeated. Exit codes: 0 done, 1 failure, 2 wrong usage,
    3 done but some rows have no score (their status says why).

    \b
    Example:  pawn score texts.jsonl -o scored.parquet
              pawn score corpus/*.parquet --text-column body --carry '*' --fpr 0.005 -o scored.csv
              echo "Some long text ..." | pawn score -
    """
    from pathlib import Path

    from pipelines.corpora import Corpus, CorpusOptions
    from pipelines.progress import ProgressLine, RowsLine
    from pipelines.scoring import ScoringSettings, score_corpus

    line = ProgressLine(shown=shown)
    options = CorpusOptions(text_column=text_column, id_column=id_column, carry=carry, input_format=input_format)
    scoring = ScoringSettings(cache=None if cache == "none" else cache, **settings)
    with Corpus.open(inputs, options) as corpus:
        out = None if output == "-" else Path(output)
        summary = score_corpus(corpus, out, scoring, say=line.say, on_progress=RowsLine(line))
    line.close()
    line.say(summary.text())
    return 3 if summary.failed else 0
