"""`pawn demo`: what the shipped detector says of texts whose origin is known for certain."""

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from pipelines.demo import DemoResult

WIDTH_WITHOUT_TERMINAL = 140


@click.command()
@click.option("--texts", type=click.IntRange(min=2), default=8, show_default=True, help="How many of each kind.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of the writing.")
def command(texts: int, seed: int) -> None:
    """Score texts made on this machine, and show the result.

    The human texts are docstrings of Python's standard library. The machine texts are written on the spot by the
    language model that the detector reads with. The first run fetches that model.

    \b
    Example:  pawn demo
              pawn demo --texts 16 --seed 7
    """
    from pipelines.demo import run_demo
    from pipelines.progress import ProgressLine
    from pipelines.scoring import Scorer

    say = ProgressLine().say
    say("loading the detector and its language model...")
    _print(run_demo(Scorer.load(progress=say), texts=texts, seed=seed, say=say))


def _print(result: "DemoResult") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH_WITHOUT_TERMINAL
    begins = max(8, console.width - 104)  # what the other columns leave
    table = Table()
    table.add_column("source")
    for name in ("tokens", "score", "p-value"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column(f"at {result.fpr:g} FPR", no_wrap=True)
    table.add_column("begins", no_wrap=True, overflow="ellipsis")
    for row in result.rows:
        verdict = Text("machine", style="red") if row.is_machine else Text("not flagged", style="green")
        numbers = (str(row.n_tokens), f"{row.score:.3f}", f"{row.p_value:.4f}")
        table.add_row(Text(row.sample.source), *numbers, verdict, Text(row.sample.text[:begins]))
    console.print(table)
    (human, humans), (machine, machines) = result.flagged(0), result.flagged(1)
    console.print(
        f"Flagged as machine-written, where {result.fpr:.2%} of human texts may be: "
        f"{human} of {humans} human texts, {machine} of {machines} machine texts.",
        soft_wrap=True,
    )
    console.print(f"AUROC of these {humans + machines} texts: {result.auroc:.3f}")
