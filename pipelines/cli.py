"""The command `pawn`: parses and prints, computes nothing."""

import importlib
import os
import sys

import click

from pipelines.provenance import ARGUMENTS
from pipelines.termination import EXIT_CODE, Terminated, ignore_sigterm, raise_on_sigterm

COMMANDS = {
    "score": "Score texts: one row out for each row in.",
    "data": "Describe, check and convert corpora.",
    "extract": "Fill the feature cache from texts.",
    "train": "Train a detector on labelled texts.",
    "evaluate": "Judge ready detectors on labelled texts.",
    "benchmark": "Train and judge detectors by the protocols of a YAML file.",
    "generate": "Write machine texts on the subjects of human ones.",
    "redteam": "Fine-tune a generator against a detector.",
    "attack": "Attack texts, and report what becomes of ready detectors.",
    "harden": "Train a detector on attacked texts too, and show what that changed.",
    "detectors": "List the detectors that can be named.",
    "runs": "List recorded runs, or compare some.",
    "reproduce": "Repeat a recorded run and compare the figures.",
    "backbone": "List, fetch and inspect language models.",
    "cache": "Inspect and verify a feature cache.",
    "demo": "Score texts made on this machine, and show the result.",
}
"""Every command with its line in `pawn --help`; each lives in pipelines/commands/<name>.py as `command`."""


class LazyGroup(click.Group):
    """Imports a command's module when it is called: `pawn --help` imports none of them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the words of the command line where a run's record finds them (`pipelines.provenance`)."""
        ctx.meta[ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which a newcomer needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The command of that name, or None."""
        if name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"pipelines.commands.{name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> object:
        """Run the command. That the reader of its output went away (`pawn ... | head`) is no failure."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # here, because click itself would make it exit code 1
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise click.exceptions.Exit(0) from None


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pawn-detect", prog_name="pawn")
def cli() -> None:
    """Tell machine-written text from human-written text.

    \b
    Example:  pawn score texts.jsonl -o scored.parquet
    """


def main() -> None:
    """Run the command line; every failure ends in one message and an exit code, never in a traceback.

    Exit codes: 0 done, 1 failure, 2 wrong usage, 3 done but some rows failed, 130 interrupted, 143 terminated.
    """
    raise_on_sigterm()
    sys.exit(_run())


def _run() -> int:
    from features.errors import PawnError

    try:
        return int(cli(standalone_mode=False) or 0)
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("\nInterrupted. What was finished is kept: repeat the command to continue.", err=True)
        return 130
    except Terminated:
        ignore_sigterm()
        click.echo("\nTerminated. What was finished is kept: repeat the command to continue.", err=True)
        return EXIT_CODE
    except PawnError as error:
        click.echo(f"Error: {error}", err=True)
        return error.exit_code
    except MemoryError:
        click.echo("Error: out of memory; try a smaller --max-length", err=True)
        return 1
    except Exception as error:
        if os.environ.get("PAWN_DEBUG"):
            raise
        click.echo(
            f"Error: {type(error).__name__}: {error}\nThis is a fault of pawn-detect, not of your input as such. "
            "Set PAWN_DEBUG=1 to see where it happened, and please report it.",
            err=True,
        )
        return 1


if __name__ == "__main__":
    main()
