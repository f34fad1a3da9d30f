"""Repeating a recorded run from what the store holds, and saying whether the figures agree."""

import contextlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from features.errors import TrackingError, UsageError
from pipelines.layouts.files import file_sha256
from pipelines.provenance import code_version, machine, package_versions
from pipelines.recorded_runs import RecordedData, RecordedRun, moved_artifacts
from pipelines.run_store import SQLITE
from pipelines.tracking import COST, started_runs

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class Comparison:
    """A figure of the recorded run and of its repetition; None where a run lacks it."""

    name: str
    before: float | None
    after: float | None
    tolerance: float

    @property
    def difference(self) -> float | None:
        """After minus before."""
        return None if self.before is None or self.after is None else self.after - self.before

    @property
    def agrees(self) -> bool:
        """Whether both are there and no further apart than the tolerance; not-a-number agrees with itself."""
        if self.before is None or self.after is None:
            return False
        if math.isnan(self.before) or math.isnan(self.after):
            return math.isnan(self.before) and math.isnan(self.after)
        return self.before == self.after or abs(self.after - self.before) <= self.tolerance


def check_data(run: RecordedRun, elsewhere: Sequence[Path] = ()) -> dict[Path, Path]:
    """Where each file that the run read is now, by the path that it had; each is the same to the byte.

    Args:
        run: the recorded run.
        elsewhere: files, and folders of files, to look for them by hash; where none are given, the recorded paths.

    Raises:
        UsageError: when there is no such path to look in.
        TrackingError: naming every file that is missing or has changed.
    """
    if absent := [str(path) for path in elsewhere if not path.exists()]:
        raise UsageError(f"--data {', '.join(absent)} is not there; give files, or folders that hold them")
    offered = [inner for path in elsewhere for inner in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    by_hash = {file_sha256(path): path for path in offered if path.is_file()}
    found: dict[Path, Path] = {}
    problems = []
    for data in run.data:
        if data.sha256 in by_hash:
            found[data.path] = by_hash[data.sha256]
        elif elsewhere:
            problems.append(f"none of the {len(by_hash)} files of --data has the SHA-256 of {_named(data)}")
        elif not data.path.is_file():
            problems.append(f"{_named(data)} is not there")
        elif (now := file_sha256(data.path)) != data.sha256:
            problems.append(f"{_named(data)} now has SHA-256 {now}")
        else:
            found[data.path] = data.path
    if problems:
        raise TrackingError(
            f"run {run.id} cannot be repeated: {'; '.join(problems)}. Say where the same files are now with --data"
        )
    return found


def _named(data: RecordedData) -> str:
    return f"{data.path} ({data.sha256})"


def changed_circumstances(record: Mapping[str, Any]) -> list[str]:
    """What differs between code, packages and machine of a run and those here: one line each, for people."""
    lines = []
    before, now = record["code"], code_version()
    if before["commit"] != now.commit:
        lines.append(f"code: commit {before['commit'] or 'unknown'} then, {now.commit or 'unknown'} now")
    for dirty, when in ((before["dirty"], "then"), (now.dirty, "now")):
        if dirty:
            lines.append(f"code: changed files that were not committed {when}")
    then, here = record["machine"], machine()
    known = then.keys() & here.keys()  # what PyTorch says of the machine is known once it is loaded
    versions = record["versions"] | {name: then[name] for name in known}
    here = package_versions() | {name: here[name] for name in known}
    names = sorted(name for name in versions.keys() | here.keys() if versions.get(name) != here.get(name))
    return lines + [f"{name}: {versions.get(name, 'none')} then, {here.get(name, 'none')} now" for name in names]


def changed_settings(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Settings in which a repetition turned out to differ, such as a detector's hash: one line each, for people."""
    # Told of before, or not to be the same.
    files = ("inputs", "calibrate_on", "raid", "corpora.", "only_learnt")
    meant = (*files, "output", "register_as", "metadata.date_released", "version.", "machine.")
    names = [name for name in dict.fromkeys([*before, *after]) if not name.startswith(meant)]
    return [
        f"setting {name}: {before.get(name, 'none')} then, {after.get(name, 'none')} now"
        for name in names
        if before.get(name) != after.get(name)
    ]


def repeat(words: Sequence[str], folder: Path) -> str:
    """Run a command in this process, in a working directory; returns the id of the run that it recorded.

    Raises:
        PawnError: as the command raises it.
        TrackingError: when it recorded no run.
    """
    from pipelines.cli import cli

    ids: list[str] = []
    token = started_runs.set(ids)
    try:
        with contextlib.chdir(folder):
            cli.main(args=list(words), prog_name="pawn", standalone_mode=False)
    except click.ClickException as error:
        raise UsageError(f"the recorded command is refused: {error.format_message()}") from error
    finally:
        started_runs.reset(token)
    if not ids:
        raise TrackingError("the repetition was not recorded, so there is nothing to compare")
    return ids[0]


def compare(before: Mapping[str, float], after: Mapping[str, float], tolerance: float) -> list[Comparison]:
    """Every figure of two runs side by side, those of `COST` left out.

    Shares may differ by `tolerance`, larger figures by that share of them, counts (whole numbers) not at all.
    """
    names = [name for name in dict.fromkeys([*before, *after]) if COST not in name]
    compared = []
    for name in names:
        first, second = before.get(name), after.get(name)
        counts = first is not None and second is not None and first.is_integer() and second.is_integer()
        allowed = 0.0 if counts or first is None else tolerance * max(1.0, abs(first))
        compared.append(Comparison(name, first, second, allowed))
    return compared


def reproduction_folder(given: str | None, run: RecordedRun) -> Path:
    """A fresh folder for what the repetition writes.

    Raises:
        UsageError: when it holds something.
    """
    folder = Path(given) if given else Path(f"reproduced-{run.id[:8]}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not empty; give a new folder with -o")
    return folder.absolute()


def working_folder(record: Mapping[str, Any], given: str | None, say: Callable[[str], None]) -> Path:
    """Where relative paths of the recorded command are looked up: there where it ran, if that is still there."""
    if given is not None:
        return Path(given)
    recorded = Path(record["folder"])
    if recorded.is_dir():
        return recorded
    say(f"The folder of the run, {recorded}, is gone: its relative paths are looked up here")
    return Path.cwd()


def store_of_repetition(
    client: "MlflowClient", run: RecordedRun, store: str, folder: Path, say: Callable[[str], None]
) -> str:
    """The URI of the store that a repetition is recorded in: the run's own, or one in the repetition's folder.

    The latter where the store was moved: it names a folder for artifacts that is gone, and may not be made there.
    """
    if moved_artifacts(client, run.id) is None:
        return store
    own = f"{SQLITE}{folder / 'mlflow.db'}"
    say(f"The store was moved, and names a folder for artifacts that is gone: the repetition is in {own}")
    return own
