"""`pawn redteam`."""

from typing import Any

import click

from pipelines.options import (
    Number,
    cache_directory,
    cache_option,
    device_option,
    input_options,
    label_option,
    progress_option,
    resamples_option,
    tracking_options,
)


@click.command()
@click.argument("method", type=click.Choice(["critic", "dpo", "dpo-human"]))
@click.option(
    "--data", "inputs", multiple=True, required=True, metavar="FILE", help="Labelled texts; human ones give prompts."
)
@click.option("-o", "--output", required=True, metavar="DIR", help="Folder for adapters, texts, record and report.")
@click.option("--detector", default="pawn-smollm2-135m", show_default=True, help="The detector that is attacked.")
@click.option(
    "--also",
    multiple=True,
    default=("log-likelihood", "fast-detect-gpt"),
    show_default=True,
    metavar="NAME|DIR|MODULE:CLASS",
    help="A detector that is not attacked, for transfer; repeat for more.",
)
@click.option("--generator", default="smollm2-135m", show_default=True, help="Causal language model that is tuned.")
@click.option("--judge", default=None, help="Another language model whose perplexity of the texts is reported too.")
@click.option(
    "--encoder",
    default="all-minilm-l6-v2",
    show_default=True,
    help="Encoder that measures similarity of meaning.",
)
@click.option("--backbone", default=None, help="Language model of the detectors.  [default: each detector's own]")
@click.option("--prompts", type=click.IntRange(min=2), default=128, show_default=True, help="To train on.")
@click.option("--held-out", type=click.IntRange(min=2), default=128, show_default=True, help="Prompts to compare on.")
@click.option(
    "--calibration",
    type=click.IntRange(min=20),
    default=200,
    show_default=True,
    help="Human texts that fix thresholds.",
)
@click.option(
    "--prompt-tokens", type=click.IntRange(min=2), default=16, show_default=True, help="Most tokens of a prompt."
)
@click.option("--new-tokens", type=click.IntRange(min=16), default=64, show_default=True, help="Tokens of each text.")
@click.option(
    "--temperature", type=Number(min=0, min_open=True), default=0.8, show_default=True, help="Of the drawing."
)
@click.option(
    "--top-p",
    type=Number(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    help="Likeliest tokens are drawn from until they have this probability.",
)
@click.option(
    "--learning-rate",
    type=Number(min=0, min_open=True),
    default=None,
    help="Of AdamW.  [default: 1e-3 for critic, 2e-4 for the others]",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=None,
    help="Of a step.  [default: 8 texts of each kind; 8 pairs]",
)
@click.option("--rank", type=click.IntRange(min=1), default=16, show_default=True, help="Of the LoRA adapters.")
@click.option(
    "--rounds", type=click.IntRange(min=1), default=12, show_default=True, help="critic: of drawing and learning."
)
@click.option(
    "--round-texts", type=click.IntRange(min=2), default=32, show_default=True, help="critic: drawn in a round."
)
@click.option(
    "--human-weight",
    type=Number(min=0),
    default=0.5,
    show_default=True,
    help="critic: of the loss on human texts.",
)
@click.option(
    "--verdict-weight",
    type=Number(min=0),
    default=1.0,
    show_default=True,
    help="critic: of the detector's verdict on own texts.",
)
@click.option(
    "--drawings",
    type=click.IntRange(2, 7),
    default=4,
    show_default=True,
    help="dpo: texts of each prompt; the most human one is preferred to the most machine-like.",
)
@click.option("--epochs", type=click.IntRange(min=1), default=3, show_default=True, help="dpo: passes over the pairs.")
@click.option(
    "--beta",
    type=Number(min=0, min_open=True),
    default=0.1,
    show_default=True,
    help="dpo: the higher, the closer the generator stays to what it was.",
)
@click.option(
    "--retrain",
    multiple=True,
    default=("lightgbm", "logistic"),
    show_default=True,
    metavar="NAME",
    help="A detector of 'pawn train' that is trained anew on texts before and after; repeat for more.",
)
@cache_option
@label_option
@input_options
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of prompts, drawing and training."
)
@resamples_option
@device_option
@progress_option
@tracking_options
def command(method: str, shown: bool | None, **options: Any) -> int:
    """Fine-tune a generator against a detector, and see which detectors it evades and what becomes of its text.

    critic learns from human texts and from its own, reinforced by the detector's verdict. dpo prefers those of its
    own texts that the detector finds most human; dpo-human prefers human over own text and asks no detector (both need
    the extra: pip install 'pawn-detect[redteam]'). Prompts are beginnings of human texts; figures are of prompts held
    out. A run that was stopped continues when the command is repeated: finished texts and adapters are kept.

    \b
    Example:  pawn redteam critic --data labelled.parquet -o redteam/critic
              pawn redteam dpo --data labelled.parquet --detector runs/mine --also lastde --epochs 2 -o redteam/dpo
    """
    from pipelines.progress import ProgressLine
    from pipelines.redteam_run import run_redteam
    from pipelines.tracking import open_tracker

    line = ProgressLine(shown=shown)
    tracked, uri, experiment = (options.pop(name) for name in ("track", "tracking_uri", "experiment"))
    tracker = open_tracker(uri, enabled=tracked, experiment=experiment, say=line.say)
    request = _request(method, options)
    result = run_redteam(
        request, say=line.say, steps=lambda what, done, total: line.update(done, total, what), tracker=tracker
    )
    line.close()
    for row in result.figures.iter_rows(named=True):
        found = "-" if row["auroc"] is None else f"{row['auroc']:.3f}"
        click.echo(f"{row['detector']:<28} {row['held_out']:<7} AUROC {found}")
    click.echo(f"{result.verdict.sentence}\nAll figures, pictures and samples: {request.output / 'report.md'}")
    return 0


def _request(method: str, options: dict[str, Any]) -> Any:
    """The request that the options make up."""
    from pathlib import Path

    from detect.adversarial.critic import CriticConfig
    from detect.adversarial.generation import SamplingSettings
    from detect.adversarial.preference import PreferenceConfig
    from pipelines.corpora import CorpusOptions
    from pipelines.redteam import RedTeamRequest

    own = {name: options.pop(name) for name in ("new_tokens", "temperature", "top_p")}
    columns = {name: options.pop(name) for name in ("text_column", "id_column", "label_column", "input_format")}
    shared = {name: value for name in ("learning_rate", "batch_size") if (value := options.pop(name)) is not None}
    critic = {name: options.pop(name) for name in ("rounds", "human_weight", "verdict_weight")}
    critic["texts"] = options.pop("round_texts")
    preference = {name: options.pop(name) for name in ("drawings", "epochs", "beta")}
    return RedTeamRequest(
        method=method,
        output=Path(options.pop("output")),
        cache=cache_directory(options.pop("cache")),
        columns=CorpusOptions(labelled=True, **columns),
        sampling=SamplingSettings(**own),
        critic=CriticConfig(**critic, **shared if method == "critic" else {}),
        preference=PreferenceConfig(**preference, **shared if method != "critic" else {}),
        **options,
    )
