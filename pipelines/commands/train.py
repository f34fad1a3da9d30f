"""`pawn train`."""

import click

from pipelines.options import input_options, model_options, progress_option


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
@click.option("--name", default=None, help="What to call the detector.  [default: the output folder's name]")
@click.option("--epochs", type=click.IntRange(min=1), default=10, show_default=True, help="At most this many.")
@click.option("--learning-rate", type=float, default=1e-3, show_default=True)
@click.option("--batch-size", type=click.IntRange(min=1), default=64, show_default=True, help="Documents.")
@click.option("--crop-probability", type=float, default=0.5, show_default=True, help="Share of texts cut at random.")
@click.option("--seed", type=int, default=0, show_default=True, help="Same seed, same data: same detector.")
@model_options
@progress_option
def pawn(
    inputs: tuple[str, ...],
    output: str,
    label_column: str,
    text_column: str,
    id_column: str | None,
    input_format: str | None,
    cache: str | None,
    backbone: str,
    name: str | None,
    epochs: int,
    learning_rate: float,
    batch_size: int,
    crop_probability: float,
    seed: int,
    max_length: int,
    device: str | None,
    shown: bool | None,
) -> int:
    """Train PAWN on labelled texts, calibrate it on human texts held out, and save it to a folder.

    Features are extracted first where the cache lacks them. A tenth of the sources each goes to early stopping,
    calibration and a final test; texts that share a pair_id, an opening or every character stay together.

    \b
    Example:  pawn train pawn --data corpus.parquet --cache cache -o runs/mine
              pawn score new.jsonl --detector runs/mine -o scored.parquet
    """
    from pathlib import Path

    from cache.store import FeatureStore
    from detect.training import TrainingConfig
    from features.backbone import Backbone
    from features.extractor import Extractor
    from features.registry import resolve
    from pipelines.corpora import Corpus, CorpusOptions
    from pipelines.options import cache_directory
    from pipelines.progress import ExtractionLine, ProgressLine, TrainingLine
    from pipelines.training import backbone_record, corpora_record, load_training_data, train_pawn, training_precision

    config = TrainingConfig(
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        crop_probability=crop_probability,
        seed=seed,
        precision=training_precision(),
    )
    line = ProgressLine(shown=shown)
    options = CorpusOptions(
        text_column=text_column,
        id_column=id_column,
        labelled=True,
        label_column=label_column,
        input_format=input_format,
    )
    with Corpus.open(inputs, options) as corpus:
        total = corpus.count_rows()
        extractor = Extractor(Backbone.load(resolve(backbone, progress=line.say), device=device), max_length=max_length)
        store = FeatureStore(cache_directory(cache), extractor.fingerprint)
        data, extraction = load_training_data(corpus, extractor, store, ExtractionLine(line, total))
        line.say(
            f"{len(data.documents):,} texts to train on; {extraction.failed:,} rows cannot be used, {data.repeated:,} "
            f"repeat an earlier text, {data.conflicting:,} texts have both labels and are left out"
        )
        trained = train_pawn(
            data,
            config,
            name=name or Path(output).name,
            backbone=backbone_record(extractor),
            corpora=corpora_record(corpus),
            progress=TrainingLine(line),
        )
    trained.save(Path(output))
    figures = "  ".join(f"{key} {value:.4g}" for key, value in trained.test.items())
    line.say(f"Test part: {figures}\nSaved to {output}; score with --detector {output}")
    return 3 if extraction.failed else 0
