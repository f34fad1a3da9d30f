"""Options that several commands share, named and explained once."""

import math
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import click

Command = Callable[..., Any]


def all_of(*decorators: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """One decorator that applies several, listed in the order of the help text."""
    return lambda command: reduce(lambda f, decorator: decorator(f), reversed(decorators), command)


def _known_device(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Refuse a device that this machine has not."""
    if value is None:
        return None
    import torch

    kind, _, number = value.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdecimal()):
        raise click.BadParameter(f"expected cpu or cuda, got {value!r}")
    found = torch.cuda.device_count()
    if kind == "cuda" and int(number or 0) >= found:
        raise click.BadParameter(f"{value} is not there: PyTorch finds {found} CUDA devices; try --device cpu")
    return value


input_options = all_of(
    click.option("--text-column", default="text", show_default=True, help="Column that holds the texts."),
    click.option("--id-column", default=None, help="Column that names the rows.  [default: id, else file:row]"),
    click.option(
        "--input-format",
        type=click.Choice(["parquet", "csv", "tsv", "jsonl", "text", "lines"]),
        default=None,
        help="Read every input as this, whatever its extension (standard input has none).",
    ),
)

label_option = click.option("--label-column", default="label", show_default=True, help="0 or human, 1 or machine.")

cache_option = click.option("--cache", default=None, metavar="DIR", help="Feature cache.  [default: under $PAWN_HOME]")

resamples_option = click.option(
    "--resamples", type=click.IntRange(min=100), default=1000, show_default=True, help="Of the bootstrap."
)


class Number(click.FloatRange):
    """A number in a range, which "nan" is not: click compares, and every comparison with it is false."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number; a usage error for what is none."""
        found: float = super().convert(value, param, ctx)
        if math.isnan(found):
            self.fail(f"{value} is no number.", param, ctx)
        return found


def rates_option(default: tuple[float, ...], explanation: str) -> Callable[[Command], Command]:
    """The option that names false-positive rates, each with what it is for."""
    return click.option(
        "--fpr",
        "fprs",
        multiple=True,
        type=Number(0, 1, min_open=True, max_open=True),
        default=default,
        show_default=True,
        help=explanation,
    )


device_option = click.option(
    "--device", default=None, callback=_known_device, help="cpu or cuda.  [default: cuda when there is one]"
)

model_options = all_of(
    click.option(
        "--max-length",
        type=click.IntRange(min=16),
        default=512,
        show_default=True,
        help="Tokens of a text that are read; the rest is cut and the row says so.",
    ),
    device_option,
)

codec_option = click.option(
    "--codec",
    default="auto",
    show_default=True,
    metavar="NAME|FILE",
    help="How hidden states are stored: float16, int8, int4, a file of 'pawn cache fit-codec', or auto: the smallest "
    "that ships for the backbone, else int8.",
)


def _layer_numbers(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...]:
    """What stands between the commas."""
    try:
        return tuple(int(number) for number in value.split(",")) if value else ()
    except ValueError as error:
        raise click.BadParameter(f"expected numbers of layers such as 10,20,30, got {value!r}") from error


normalise_option = click.option(
    "--normalise/--no-normalise",
    default=True,
    show_default=True,
    help="Undo invisible characters and look-alike letters first, the usual tricks against detectors.",
)


def names_between_commas(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    """What stands between the commas."""
    return tuple(name.strip() for name in value.split(",") if name.strip()) if value else ()


strength_options = all_of(
    click.option(
        "--strengths",
        default="x1",
        show_default=True,
        metavar="xN|N,...",
        help="x0.5,x1,x2: so many times the usual strength of each attack; 0.1,0.3: these strengths themselves.",
    ),
    click.option(
        "--attacker",
        default=None,
        metavar="NAME",
        help="Language model of attacks that need one.  [default: that of --backbone, else smollm2-135m]",
    ),
)

observer_option = click.option(
    "--observer",
    default=None,
    metavar="NAME|@LAYER",
    help="Second language model of the same vocabulary, for detectors that compare two; @20 is the backbone itself "
    "read out after its layer 20.",
)

ready_options = all_of(
    label_option,
    input_options,
    click.option("--backbone", default=None, help="Language model.  [default: the one that a detector was trained on]"),
    observer_option,
    cache_option,
)
"""How detectors that are ready read labelled texts."""

layers_option = click.option(
    "--layers",
    default=None,
    metavar="N,N,...",
    callback=_layer_numbers,
    help="Layers whose hidden states are kept, from 1; the last is after the final norm.  [default: the last alone]",
)

progress_option = click.option(
    "--progress/--no-progress", "shown", default=None, help="Progress on standard error.  [default: on a terminal]"
)

tracking_uri_option = click.option(
    "--tracking-uri",
    envvar="MLFLOW_TRACKING_URI",
    show_envvar=True,
    default=None,
    metavar="URI",
    help="MLflow store of runs.  [default: sqlite:///mlflow.db]",
)
experiment_option = click.option(
    "--experiment",
    envvar="MLFLOW_EXPERIMENT_NAME",
    show_envvar=True,
    default="pawn-detect",
    show_default=True,
    help="MLflow experiment that runs belong to.",
)
tracking_options = all_of(
    click.option(
        "--track/--no-track",
        envvar="PAWN_TRACK",
        show_envvar=True,
        default=True,
        show_default=True,
        help="Record this as a run in MLflow.",
    ),
    tracking_uri_option,
    experiment_option,
)


def _model_name(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Refuse a name that MLflow would refuse, before the training rather than after it."""
    if value is not None and (not value.strip() or set(value) & set("/:")):
        raise click.BadParameter(f"expected a name without '/' and ':', got {value!r}")
    return value


register_option = click.option(
    "--register-as",
    default=None,
    metavar="NAME",
    callback=_model_name,
    help="Register the detector in MLflow under this name.",
)


def cache_directory(given: str | None) -> Path:
    """The cache folder: the one given, or the one under $PAWN_HOME."""
    from features.registry import home

    return Path(given) if given else home() / "features"
