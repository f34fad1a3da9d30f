"""`pawn harden`."""

from collections.abc import Sequence
from typing import Any

import click

from detect.catalog import trainable_names
from pipelines.commands.train import data_options, training_options
from pipelines.options import names_between_commas, strength_options


def _settings(context: click.Context, parameter: click.Parameter, values: Sequence[str]) -> dict[str, Any]:
    """What stands on both sides of each equals sign, the right side as YAML reads it."""
    import yaml

    found = {}
    for value in values:
        name, equals, given = value.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"expected NAME=VALUE such as epochs=4, got {value!r}")
        try:
            found[name.strip().replace("-", "_")] = yaml.safe_load(given)
        except yaml.YAMLError as error:
            raise click.BadParameter(f"expected NAME=VALUE such as epochs=4, got {value!r}") from error
    if "seed" in found:
        raise click.BadParameter("the seed is an option of its own: --seed")
    return found


@click.command()
@click.argument("detector", type=click.Choice(trainable_names()), metavar="DETECTOR")
@data_options
@click.option(
    "--attacks",
    default="",
    metavar="NAME,NAME,...",
    callback=names_between_commas,
    help="Attacks of 'pawn attack --list' that are learnt from.",
)
@click.option(
    "--hold-out-attacks",
    "hold_out",
    default="",
    metavar="NAME,NAME,...",
    callback=names_between_commas,
    help="Attacks that the detector is judged by and never shown.",
)
@strength_options
@click.option(
    "--redteam",
    default="",
    metavar="METHOD,METHOD,...",
    callback=names_between_commas,
    help="Methods of 'pawn redteam' (critic, dpo, dpo-human): the --attacker is tuned by each against the newest "
    "detector, its texts are learnt from, and those on beginnings of the test part judged.",
)
@click.option(
    "--hold-out-redteam",
    default="",
    metavar="METHOD,METHOD,...",
    callback=names_between_commas,
    help="Methods whose generators' texts are judged and never shown.",
)
@click.option(
    "--redteam-prompts",
    type=click.IntRange(min=8),
    default=128,
    show_default=True,
    help="Most prompts that a generator learns on, and most that it is judged on.",
)
@click.option(
    "--outputs",
    multiple=True,
    metavar="FILE",
    help="Labelled outputs of attackers: learnt from, and those of the test part judged; repeat for more.",
)
@click.option(
    "--hold-out-outputs",
    multiple=True,
    metavar="FILE",
    help="Labelled outputs of other attackers: those of the test part judged, none learnt from; repeat for more.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Trainings; before each, attacks that query a detector are made, and generators that ask one are tuned, "
    "against the newest one.",
)
@click.option(
    "--copies",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Attacked versions of each text, by attacks drawn from --attacks.",
)
@click.option(
    "--queried-texts",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="Texts of each class that an attack with queries changes in a round.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=None,
    help="Most texts of each class that are judged.  [default: the test part]",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_settings,
    help="A setting of the detector's recipe, as 'pawn train DETECTOR' has it (epochs=4); repeat for more.",
)
@training_options
def command(output: str, shown: bool | None, **options: Any) -> int:
    """Train a detector on attacked texts of both classes, and show what that changed.

    DETECTOR is a recipe of 'pawn train'. It is trained twice on the same split: before, on the texts alone, and after,
    on attacked versions of the training texts too. Both are judged on clean texts, on attacks seen in training and on
    attacks held out, side by side, in OUTPUT-report/hardening.md. With --rounds above 1, attacks that query a detector
    are made, and generators tuned, against the newest one before each training; at the end each detector is judged by
    attacks made against itself. The detector is saved as 'pawn train' does; attacked texts,
    scores and trained detectors are kept: a stopped command that is repeated goes on where it was.

    \b
    Example:  pawn harden lightgbm --data mine.parquet --attacks homoglyph,word --hold-out-attacks synonym -o hard
              pawn harden covariance --data mine.parquet --redteam critic --hold-out-redteam dpo --rounds 3 -o hard
              pawn score texts.jsonl --detector hard -o scored.parquet
    """
    from pathlib import Path

    from pipelines.hardening import HardeningRequest, run_hardening
    from pipelines.progress import ProgressLine, RowsLine, TrainingLine
    from pipelines.tracking import open_tracker

    line = ProgressLine(shown=shown)
    tracked, uri, experiment = (options.pop(name) for name in ("track", "tracking_uri", "experiment"))
    request = HardeningRequest(output=Path(output), **options)
    failed = run_hardening(
        request,
        say=line.say,
        rows_line=RowsLine(line),
        progress=TrainingLine(line),
        tracker=open_tracker(uri, enabled=tracked, experiment=experiment, say=line.say),
    )
    line.close()
    click.echo(f"Before and after, side by side: {request.report / 'hardening.md'}")
    return 3 if failed else 0
