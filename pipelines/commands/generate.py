"""`pawn generate`."""

from typing import Any

import click

from pipelines.options import device_option, input_options, label_option, progress_option


@click.command()
@click.option(
    "--data", "inputs", multiple=True, required=True, metavar="FILE", help="Labelled texts; human ones give subjects."
)
@click.option("-o", "--output", required=True, metavar="FILE", help="Parquet file of the texts.")
@label_option
@input_options
@click.option("--model", default="smollm2-135m", show_default=True, help="Causal language model that writes.")
@click.option(
    "--texts", type=click.IntRange(min=1), default=1500, show_default=True, help="At most one for each human text."
)
@click.option("--new-tokens", type=click.IntRange(min=16), default=150, show_default=True, help="Of each text at most.")
@click.option("--batch-size", type=click.IntRange(min=1), default=48, show_default=True, help="Texts written together.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of every choice.")
@device_option
@progress_option
def command(
    output: str,
    label_column: str,
    text_column: str,
    id_column: str | None,
    input_format: str | None,
    shown: bool | None,
    **options: Any,
) -> None:
    """Write machine texts on the subjects of human ones, for training.

    A language model goes on with human texts, writes on their subjects and rewrites them, drawing its words in nine
    ways from cool to hot, some with a penalty on repetition. Texts keep the domain and the group of what they were
    written after, so that splits keep them together; `attack` says what the model was asked for.

    \b
    Example:  pawn generate --data corpus.parquet -o generated.parquet
              pawn train pawn-ensemble --data corpus.parquet --only-learnt generated.parquet -o runs/mine
    """
    from pathlib import Path

    from pipelines.corpora import CorpusOptions
    from pipelines.generation import GenerationRequest, run_generation
    from pipelines.progress import ProgressLine, RowsLine

    line = ProgressLine(shown=shown)
    columns = CorpusOptions(
        text_column=text_column,
        id_column=id_column,
        labelled=True,
        label_column=label_column,
        input_format=input_format,
    )
    request = GenerationRequest(output=Path(output), columns=columns, **options)
    rows = RowsLine(line)
    written = run_generation(request, line.say, lambda done, total: rows(done, total, 0))
    line.close()
    line.say(f"{written} texts written to {output}")
