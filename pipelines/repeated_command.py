"""The command of a recorded run again: its output elsewhere, its data and detectors where they are now."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import Any

import click

from features.errors import TrackingError, UsageError

OUTPUT = "output"
DATA = ("inputs", "only_learnt", "calibrate_on", "outputs", "hold_out_outputs", "raid")
"""Parameters that name files of texts: each is told of to the run as data."""

DETECTORS = "detectors"
CONFIG = "config"
DROPPED = ("register_as", "shown", "track", "tracking_uri", "experiment")
"""Parameters of a recorded command that a repetition does not take over."""


@dataclass(frozen=True)
class CommandLine:
    """The words of a command of `pawn`, taken apart: the command, and what was given by parameter name."""

    path: tuple[str, ...]
    command: click.Command
    given: dict[str, Any]

    @classmethod
    def parse(cls, words: Sequence[str]) -> "CommandLine":
        """Take recorded words apart.

        Raises:
            TrackingError: when this version of the program would not understand them.
        """
        from pipelines.cli import cli

        command: click.Command = cli
        context = click.Context(cli, info_name="pawn")
        path: list[str] = []
        rest = list(words)
        try:
            while isinstance(command, click.Group):
                child = command.get_command(context, rest[0]) if rest else None
                if child is None:
                    raise click.UsageError(f"no command {' '.join([*path, *rest[:1]])!r}")
                path.append(rest.pop(0))
                command, context = child, click.Context(child, parent=context, info_name=path[-1])
            given, _, order = command.make_parser(context).parse_args(rest)
        except click.UsageError as error:
            raise TrackingError(
                f"this version does not understand the recorded command 'pawn {' '.join(words)}': "
                f"{error.format_message()}; install the version that recorded it"
            ) from error
        named = {parameter.name for parameter in order if parameter.name}
        return cls(tuple(path), command, {name: given[name] for name in named})

    def words(self) -> list[str]:
        """The command line again; values as they are in `given`."""
        options, arguments = [], []
        for parameter in self.command.params:
            value = self.given.get(parameter.name or "")
            if value is None or value == [] or value == ():
                continue
            values = list(value) if isinstance(value, list | tuple) else [value]
            if isinstance(parameter, click.Option):
                options += _option_words(parameter, values)
            else:
                arguments += [str(one) for one in values]
        return [*self.path, *options, *(["--", *arguments] if arguments else [])]


def _option_words(option: click.Option, values: Sequence[Any]) -> list[str]:
    """An option with each of its values, or a flag."""
    longest = max(option.opts, key=len)
    if not option.is_flag:
        return [word for value in values for word in (longest, str(value))]
    on = values[-1] in (True, option.flag_value)
    return [longest] if on else [max(option.secondary_opts, key=len)] if option.secondary_opts else []


@dataclass(frozen=True)
class Repetition:
    """Where a repetition works and what it finds there.

    Attributes:
        folder: for what it writes.
        where: that relative paths are looked up in.
        data: where each file of texts is now, by the path that it had.
        detectors: folders to look for the run's detectors in, before the places that they had.
        tracking_uri: the store that records it.
        experiment: in that store.
    """

    folder: Path
    where: Path
    data: Mapping[Path, Path]
    detectors: Sequence[Path]
    tracking_uri: str
    experiment: str

    def words(self, record: Mapping[str, Any]) -> list[str]:
        """The words of the recorded command, changed to what there is now; tracking is on.

        The configuration of a benchmark is written to `folder` as the run recorded it, with its files where they are.

        Args:
            record: what the run kept (`pipelines.tracking.RECORD_FILE`).

        Raises:
            TrackingError: when there is no command on record, or what it read cannot be found.
            UsageError: when a detector given is none of the run's.
        """
        if not record["command"]:
            raise TrackingError("the run was not made by a command of pawn, so there is none to repeat")
        line = CommandLine.parse(record["command"])
        known = {parameter.name for parameter in line.command.params}
        if "track" not in known:
            raise TrackingError(f"pawn {' '.join(line.path)} records no runs in this version")
        given = {name: value for name, value in line.given.items() if name not in DROPPED}
        if OUTPUT in known:
            given[OUTPUT] = str(self.folder / (Path(str(given.get(OUTPUT, "out"))).name or "out"))
        if self.where != Path(record["folder"]) or any(before != now for before, now in self.data.items()):
            for name in given.keys() & set(DATA):
                given[name] = self._files(given[name], record)
        if DETECTORS in given or self.detectors:
            given[DETECTORS] = self._detectors(given.get(DETECTORS, ()), record)
        if CONFIG in given:  # after all that may be refused: it is written
            given[CONFIG] = str(self._benchmark(record))
        given |= {"track": True, "tracking_uri": self.tracking_uri, "experiment": self.experiment}
        return CommandLine(line.path, line.command, given).words()

    def _files(self, words: Any, record: Mapping[str, Any]) -> list[str]:
        return files_now([words] if isinstance(words, str) else words, Path(record["folder"]), self.data)

    def _benchmark(self, record: Mapping[str, Any]) -> Path:
        """Write the configuration of a benchmark; gives the file."""
        import yaml

        from pipelines.benchmark_config import BenchmarkConfig

        settings = record["settings"]
        content = {name: settings[name] for name in BenchmarkConfig.__dataclass_fields__ if settings.get(name)}
        for name in ("corpora", "only_learnt"):
            if name in content:
                content[name] = {corpus: self._files(files, record) for corpus, files in content[name].items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "benchmark.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
        return path

    def _detectors(self, words: Sequence[str], record: Mapping[str, Any]) -> list[str]:
        """Names and classes as they are; for each folder, one that holds the same detector."""
        from detect.catalog import PRETRAINED, load_detector

        if absent := [str(path) for path in self.detectors if not path.is_dir()]:
            raise UsageError(f"--detector {', '.join(absent)} is not there; give the folder of a detector")
        ready = record["settings"].get(DETECTORS, {})
        if not isinstance(ready, Mapping) or (self.detectors and not ready):
            raise UsageError("--detector is for runs that judged detectors which were ready; leave it out")
        # Both in the order given, a repeated one once.
        judged = [json.loads(scorer["detector"]) for scorer in ready.values()]
        recorded = dict(zip(dict.fromkeys(words), judged, strict=False))
        offered = {path: load_detector(str(path)).identity for path in self.detectors}
        for path, identity in offered.items():
            if identity not in recorded.values():
                raise UsageError(f"--detector {path} is none of the detectors of the run; it is {_told(identity)}")
        found = []
        for word in words:
            identity = recorded.get(word, {})
            same = [path for path, offer in offered.items() if offer == identity]
            is_folder = "calibration_scores" in identity and not (PRETRAINED / word).is_dir()
            if is_folder and not same and not (self.where / word).is_dir():
                raise TrackingError(
                    f"the run judged {_told(identity)} in {self.where / word}, which is not there. Say with --detector "
                    "where the same one is now. A training on record keeps its detector as an MLflow model: 'mlflow "
                    "artifacts download -u models:/ID -d DIR' puts it in DIR/artifacts"
                )
            found.append(str(same[0].absolute()) if same else word)
        return found


def _told(identity: Mapping[str, Any]) -> str:
    weights = identity.get("weights_sha256")
    return f"detector {identity['name']}" + (f" with weights {weights[:12]}" if weights else "")


def files_now(words: Iterable[str], folder: Path, moved: Mapping[Path, Path]) -> list[str]:
    """The files that words of a command named, where they are now; for a folder or glob, those that were read of it.

    Args:
        words: paths, folders and globs as they were given.
        folder: that the command ran in.
        moved: where each file is now, by the absolute path that it had.

    Raises:
        TrackingError: for a word that names no file on record.
    """
    now = {PurePath(os.path.normpath(before)): path for before, path in moved.items()}
    found = []
    for word in words:
        named = PurePath(os.path.normpath(folder / word))
        files = [named] if named in now else sorted(path for path in now if _is_in(path, named))
        # A store keeps one path of files that are the same, that of the first run: another folder, the same name.
        files = files or [path for path in now if path.name == named.name]
        if not files:
            raise TrackingError(
                f"the run has no file of {word!r} on record, so it is not known where that is now: repeat the run "
                f"where it was, in {folder}, with all data in their places"
            )
        found += [str(now[path].absolute()) for path in files]
    return found


def _is_in(path: PurePath, named: PurePath) -> bool:
    """Whether a folder or glob has a file; `**/` is any folders, or none."""
    if "**" in named.parts:
        return fnmatchcase(str(path), str(named).replace("**/", "*"))
    return path.is_relative_to(named) or path.match(str(named))
