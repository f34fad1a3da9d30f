"""`pawn train`: one subcommand for each detector that learns, with the options that all share and its own."""

from collections.abc import Callable, Sequence
from typing import Any

import click

from detect.catalog import ENTRIES, TEXT, CatalogEntry
from pipelines.options import (
    Number,
    all_of,
    cache_option,
    codec_option,
    device_option,
    input_options,
    label_option,
    layers_option,
    model_options,
    names_between_commas,
    observer_option,
    progress_option,
    register_option,
    tracking_options,
)


@click.group()
def command() -> None:
    """Train a detector on labelled texts.

    \b
    Example:  pawn train pawn --data mine.parquet -o runs/mine
    """


data_options = all_of(
    click.option(
        "--data",
        "inputs",
        multiple=True,
        required=True,
        metavar="FILE",
        help="Labelled texts: a file, folder or glob that 'pawn score' would read; repeat for more.",
    ),
    click.option("-o", "--output", required=True, metavar="DIR", help="Folder for the trained detector."),
    label_option,
    input_options,
)
naming_options = all_of(
    click.option("--name", default=None, help="What to call the detector.  [default: the output folder's name]"),
    click.option(
        "--seed",
        type=click.IntRange(0, 2**32 - 1),
        default=0,
        show_default=True,
        help="Same seed, same data: same detector.",
    ),
    click.option(
        "--calibration",
        type=click.Choice(["held-out", "left-out-domains"]),
        default="held-out",
        show_default=True,
        help="Human scores behind p-values: of held-out texts, or of each domain by a detector trained without it.",
    ),
)
run_options = all_of(progress_option, register_option, tracking_options)

training_options = all_of(
    cache_option,
    click.option("--backbone", default="smollm2-135m", show_default=True, help="Language model."),
    layers_option,
    observer_option,
    codec_option,
    naming_options,
    model_options,
    run_options,
)
only_learnt_option = click.option(
    "--only-learnt",
    multiple=True,
    metavar="FILE",
    help="Labelled texts made for training: learnt from, they neither judge nor calibrate; repeat for more.",
)
feature_options = all_of(data_options, only_learnt_option, training_options)
text_options = all_of(data_options, only_learnt_option, naming_options, run_options)

epochs = click.option("--epochs", type=click.IntRange(min=1), default=10, show_default=True, help="At most this many.")
peak_rate = click.option(
    "--learning-rate",
    type=Number(min=0, min_open=True),
    default=1e-3,
    show_default=True,
    help="Of AdamW, at its peak.",
)
batch_size = click.option("--batch-size", type=click.IntRange(min=1), default=64, show_default=True, help="Documents.")
crop_probability = click.option(
    "--crop-probability",
    type=Number(0, 1),
    default=0.5,
    show_default=True,
    help="Share of texts cut at random.",
)
likelihood_weight = click.option(
    "--likelihood-weight",
    type=Number(min=0),
    default=0.5,
    show_default=True,
    help="How much of the standardised mean log-likelihood is added to the score; 0 is the paper.",
)


def rounds(default: int) -> Callable[..., Any]:
    """The option that limits boosting."""
    return click.option(
        "--rounds", type=click.IntRange(min=1), default=default, show_default=True, help="Trees at most."
    )


shrinkage = click.option(
    "--learning-rate",
    type=Number(0, 1, min_open=True),
    default=0.05,
    show_default=True,
    help="Share of each tree that is added.",
)


members = click.option(
    "--members",
    default="pawn,lightgbm,bilinear",
    show_default=True,
    metavar="NAME,NAME,...",
    callback=names_between_commas,
    help="Detectors of 'pawn detectors', each by its own recipe.",
)

network_options = (epochs, peak_rate, batch_size)


def fine_tuning_options(base: str, rate: float) -> Sequence[Callable[..., Any]]:
    """The options of a detector that fine-tunes a model: its usual base and learning rate."""
    return (
        click.option(
            "--base", default=base, show_default=True, help="Model to start from: a name, a folder or a hub id."
        ),
        click.option(
            "--max-length",
            type=click.IntRange(min=16),
            default=512,
            show_default=True,
            help="Tokens of a text that the detector reads, now and later.",
        ),
        device_option,
        click.option(
            "--epochs", type=click.IntRange(min=1), default=3, show_default=True, help="Passes over the texts at most."
        ),
        click.option(
            "--learning-rate",
            type=Number(min=0, min_open=True),
            default=rate,
            show_default=True,
            help="Of AdamW, at its peak.",
        ),
        click.option("--batch-size", type=click.IntRange(min=1), default=16, show_default=True, help="Texts."),
        click.option(
            "--noise/--no-noise",
            default=False,
            show_default=True,
            help="Noise-augmented fine-tuning (NoiseFiT), at three times the cost.",
        ),
    )


vocabulary = click.option(
    "--vocabulary",
    type=click.IntRange(min=1),
    default=50_000,
    show_default=True,
    help="Most n-grams of words, and of characters, that are counted.",
)
OPTIONS: dict[str, Sequence[Callable[..., Any]]] = {
    "pawn": (*network_options, crop_probability, likelihood_weight),
    "pawn-paper": network_options,
    "pawn-no-hidden": (*network_options, crop_probability),
    "pawn-no-metrics": (*network_options, crop_probability),
    "pawn-layers": (*network_options, crop_probability, likelihood_weight),
    "lightgbm": (rounds(1000), shrinkage),
    "profile": (rounds(1000), shrinkage),
    "diveye": (rounds(200), shrinkage),
    "ensemble": (members,),
    "tfidf": (vocabulary,),
    "encoder": fine_tuning_options("all-minilm-l6-v2", 5e-5),
    "lora": fine_tuning_options("smollm2-135m", 2e-4),
}
"""Each detector's own options, named as its recipe names them; those not listed have none."""

SHARED = (
    "only_learnt",
    "label_column",
    "text_column",
    "id_column",
    "input_format",
    "name",
    "seed",
    "calibration",
    "register_as",
)
FEATURES = ("cache", "codec", "backbone", "max_length", "device", "layers", "observer")
"""The shared options that a training request knows, of all detectors and of those that read features; what else is
given is the recipe's."""

HELP = """Train {name}: {summary}.

    It learns from labelled texts, is calibrated on human texts held out, and is saved to a folder. Features are
    extracted first where the cache lacks them. A tenth of the sources each goes to early stopping, calibration and a
    final test; texts that share a pair_id, an opening or every character, and near-duplicates, stay together.
    Source: {source}.

    \b
    Example:  pawn train {name} --data corpus.parquet --cache cache -o runs/mine
              pawn score new.jsonl --detector runs/mine -o scored.parquet
    """

TEXT_HELP = """Train {name}: {summary}.

    It learns from labelled texts, without the language model and the feature cache of other detectors, is calibrated on
    human texts held out, and is saved to a folder. A tenth of the sources each goes to early stopping, calibration and
    a final test; texts that share a pair_id, an opening or every character, and near-duplicates, stay together. A
    killed training of encoder and lora continues when the same command is repeated. Source: {source}.

    \b
    Example:  pawn train {name} --data corpus.parquet -o runs/mine
              pawn score new.jsonl --detector runs/mine -o scored.parquet
    """


def train(entry: CatalogEntry, output: str, shown: bool | None, settings: dict[str, Any]) -> int:
    """What every subcommand does; the exit code says whether every row could be used."""
    from pathlib import Path

    from pipelines.progress import ProgressLine, RowsLine, TrainingLine
    from pipelines.tracking import open_tracker

    line = ProgressLine(shown=shown)
    tracked, uri, experiment = (settings.pop(option) for option in ("track", "tracking_uri", "experiment"))
    tracker = open_tracker(uri, enabled=tracked, experiment=experiment, say=line.say)
    told: dict[str, Any] = {
        "say": line.say,
        "rows_line": RowsLine(line),
        "progress": TrainingLine(line),
        "tracker": tracker,
    }
    shared = {option: settings.pop(option) for option in ("inputs", *SHARED)}
    shared |= {"detector": entry.name, "output": Path(output)}
    if entry.reads == TEXT:
        from pipelines.fitting import LabelledRequest
        from pipelines.text_training import run_text_training

        failed = run_text_training(LabelledRequest(**shared, settings=settings), **told)
    else:
        from pipelines.training import TrainingRequest, run_training

        shared |= {option: settings.pop(option) for option in FEATURES}
        failed = run_training(TrainingRequest(**shared, settings=settings), **told)
    return 3 if failed else 0


def subcommand(entry: CatalogEntry) -> click.Command:
    """`pawn train NAME`."""

    def run(output: str, shown: bool | None, **settings: Any) -> int:
        return train(entry, output, shown, settings)

    shared, text = (text_options, TEXT_HELP) if entry.reads == TEXT else (feature_options, HELP)
    run.__doc__ = text.format(name=entry.name, summary=entry.summary, source=entry.source)
    options = all_of(shared, *OPTIONS.get(entry.name, ()))
    return click.command(entry.name, short_help=entry.summary)(options(run))


for trainable in ENTRIES:
    if trainable.trainable:
        command.add_command(subcommand(trainable))
