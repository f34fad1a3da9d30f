"""`pawn train`."""

from typing import Any

import click

from pipelines.options import codec_option, input_options, model_options, progress_option


@click.group()
def command() -> None:
    """Train a detector on labelled texts.

    \b
    Example:  pawn train pawn --data mine.parquet -o runs/mine
    """


@command.command()
@click.option(
    "--data",
    "inputs",
    multiple=True,
    required=True,
    metavar="FILE",
    help="Labelled texts: a file, folder or glob that 'pawn score' would read; repeat for more.",
)
@click.option("-o", "--output", required=True, metavar="DIR", help="Folder for the trained detector.")
@click.option("--label-column", default="label", show_default=True, help="0 or human, 1 or machine.")
@input_options
@click.option("--cache", default=None, metavar="DIR", help="Feature cache.  [default: under $PAWN_HOME]")
@click.option("--backbone", default="smollm2-135m", show_default=True, help="Language model.")
@codec_option
@click.option("--name", default=None, help="What to call the detector.  [default: the output folder's name]")
@click.option("--epochs", type=click.IntRange(min=1), default=10, show_default=True, help="At most this many.")
@click.option(
    "--learning-rate",
    type=click.FloatRange(min=0, min_open=True),
    default=1e-3,
    show_default=True,
    help="Of AdamW, at its peak.",
)
@click.option("--batch-size", type=click.IntRange(min=1), default=64, show_default=True, help="Documents.")
@click.option(
    "--crop-probability",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Share of texts cut at random.",
)
@click.option(
    "--likelihood-weight",
    type=click.FloatRange(min=0),
    default=0.5,
    show_default=True,
    help="How much of the standardised mean log-likelihood is added to the score; 0 is the paper.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="Same seed, same data: same detector.",
)
@click.option(
    "--calibration",
    type=click.Choice(["held-out", "left-out-domains"]),
    default="held-out",
    show_default=True,
    help="Human scores behind p-values: of held-out texts, or of each domain by a network trained without it.",
)
@model_options
@progress_option
def pawn(inputs: tuple[str, ...], output: str, shown: bool | None, **settings: Any) -> int:
    """Train PAWN on labelled texts, calibrate it on human texts held out, and save it to a folder.

    Features are extracted first where the cache lacks them. A tenth of the sources each goes to early stopping,
    calibration and a final test; texts that share a pair_id, an opening or every character stay together.

    \b
    Example:  pawn train pawn --data corpus.parquet --cache cache -o runs/mine
              pawn score new.jsonl --detector runs/mine -o scored.parquet
    """
    from pathlib import Path

    from pipelines.progress import ProgressLine, RowsLine, TrainingLine
    from pipelines.training import TrainingRequest, run_training

    line = ProgressLine(shown=shown)
    request = TrainingRequest(inputs=inputs, output=Path(output), **settings)
    failed = run_training(request, say=line.say, rows_line=RowsLine(line), progress=TrainingLine(line))
    return 3 if failed else 0
