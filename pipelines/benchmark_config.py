"""What a benchmark compares: read from a YAML file that a person wrote."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from features.errors import PawnError, UsageError
from pipelines.judging import Contender
from pipelines.protocols import PROTOCOLS

LARGEST_CONFIG = 1_000_000
"""Bytes; a configuration is written by a person."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """What a benchmark compares.

    Attributes:
        name: for titles and runs.
        corpora: files of each corpus by its name.
        detectors: those compared.
        only_learnt: files of corpora that are learnt from and never judged, by name; see `protocols.folds`.
        protocols: of `PROTOCOLS`.
        seeds: of splits and trainings; each gives one row more.
        backbone: language model whose features are read.
        codec: form of the hidden states in the cache.
        max_length: tokens of a text that are read.
        observer: second language model, or "@20" for an early exit, for detectors that compare two; None: none does.
        layers: whose hidden states detectors of several layers read; (): three, a third of the depth apart.
        fprs: false-positive rates that figures are given at.
        resamples: of the bootstrap by source.
        share: of the sources of every corpus that is used, where all would take too long.
    """

    name: str
    corpora: Mapping[str, tuple[Path, ...]]
    detectors: tuple[Contender, ...]
    only_learnt: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    protocols: tuple[str, ...] = ("in-domain",)
    seeds: tuple[int, ...] = (0,)
    backbone: str = "smollm2-135m"
    codec: str = "auto"
    max_length: int = 512
    observer: str | None = None
    layers: tuple[int, ...] = ()
    fprs: tuple[float, ...] = (0.001, 0.01, 0.05)
    resamples: int = 1000
    share: float = 1.0

    @classmethod
    def read(cls, path: Path) -> "BenchmarkConfig":
        """Read a YAML file; the paths in it are taken from its own folder.

        Raises:
            UsageError: naming everything that is wrong with it at once.
        """
        content = _mapping(path)
        wrong = [f"unknown field {name!r}" for name in content if name not in cls.__dataclass_fields__]
        fields: dict[str, Any] = {"name": path.stem}
        for name, (expected, right) in _CHECKS.items():
            if name not in content:
                continue
            fields[name] = tuple(content[name]) if isinstance(content[name], list) else content[name]
            if not right(content[name]):
                wrong.append(f"{name}: expected {expected}, got {content[name]!r}")
        fields["corpora"] = _corpora("corpora", content.get("corpora"), path.parent, wrong)
        if "only_learnt" in content:
            fields["only_learnt"] = _corpora("only_learnt", content["only_learnt"], path.parent, wrong)
            wrong += [
                f"only_learnt: {name} is judged too" for name in fields["only_learnt"] if name in fields["corpora"]
            ]
        fields["detectors"] = _contenders(content.get("detectors"), fields.get("observer"), wrong)
        if wrong:
            raise UsageError(f"{path} is no benchmark that can be run:\n" + "\n".join(f"- {line}" for line in wrong))
        return cls(**fields)

    @property
    def every_corpus(self) -> dict[str, tuple[Path, ...]]:
        """Files of each corpus by its name, whether it is judged or only learnt from."""
        return {**self.corpora, **self.only_learnt}

    def settings(self) -> dict[str, Any]:
        """All of it, JSON-able."""
        files = {
            name: {corpus: [str(file) for file in paths] for corpus, paths in getattr(self, name).items()}
            for name in ("corpora", "only_learnt")
        }
        return asdict(self) | files


def _list_of(right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Whether a value is a list of such things, each once."""
    return lambda value: (
        isinstance(value, list) and bool(value) and all(right(item) for item in value) and len(set(value)) == len(value)
    )


def _text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


_CHECKS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "name": ("text", _text),
    "backbone": ("text", _text),
    "codec": ("text", _text),
    "protocols": (f"a list of {', '.join(PROTOCOLS)}, each once", _list_of(lambda name: name in PROTOCOLS)),
    "seeds": ("a list of whole numbers from 0, each once", _list_of(lambda seed: type(seed) is int and seed >= 0)),
    "fprs": ("a list of rates between 0 and 1, each once", _list_of(lambda fpr: type(fpr) is float and 0 < fpr < 1)),
    "max_length": ("a whole number from 16", lambda value: type(value) is int and value >= 16),
    "observer": ("text", _text),
    "layers": ("a list of whole numbers from 1, each once", _list_of(lambda layer: type(layer) is int and layer >= 1)),
    "share": ("a number above 0, at most 1", lambda value: type(value) in (int, float) and 0 < value <= 1),
    "resamples": ("a whole number from 100", lambda value: type(value) is int and value >= 100),
}
"""What each field must be, in words and as a check."""


def _mapping(path: Path) -> dict[str, Any]:
    import yaml

    try:
        if path.stat().st_size > LARGEST_CONFIG:
            raise UsageError(f"{path} has {path.stat().st_size:,} bytes; expected a YAML file of detectors and corpora")
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}; expected a YAML file") from error
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path}: expected fields like corpora and detectors, got {type(content).__name__}")
    return content


def _corpora(field_name: str, given: object, folder: Path, wrong: list[str]) -> dict[str, tuple[Path, ...]]:
    if not isinstance(given, dict) or not given:
        wrong.append(f"{field_name}: expected names with a file or a list of files each, got {given!r}")
        return {}
    found = {}
    for name, files in given.items():
        paths = [folder / str(file) for file in (files if isinstance(files, list) else [files])]
        wrong += [f"{field_name}: {name}: no file {path}" for path in paths if not path.is_file()]
        found[str(name)] = tuple(paths)
    return found


def _contenders(given: object, observer: str | None, wrong: list[str]) -> tuple[Contender, ...]:
    if not isinstance(given, list) or not given:
        wrong.append(f"detectors: expected a list of names, or of name, label and settings, got {given!r}")
        return ()
    found = []
    for entry in given:
        fields = {"name": entry} if isinstance(entry, str) else entry
        if not isinstance(fields, dict) or "name" not in fields or fields.keys() - {"name", "label", "settings"}:
            wrong.append(f"detectors: expected a name, or name, label and settings, got {entry!r}")
            continue
        if not isinstance(fields.get("settings") or {}, dict):
            wrong.append(
                f"detectors: settings of {fields['name']}: expected names with values, got {fields['settings']!r}"
            )
            continue
        name = str(fields["name"])
        contender = Contender(str(fields.get("label", name)), name, fields.get("settings") or {})
        try:
            contender.check()
            if observer is None and contender.reads_observer():
                wrong.append(
                    f"detectors: {contender.name} compares two language models: name the second as observer, or "
                    '"@LAYER" for an early exit of the backbone'
                )
        except PawnError as error:
            wrong.append(f"detectors: {error}")
        found.append(contender)
    labels = [contender.label for contender in found]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        wrong.append(f"detectors: {', '.join(twice)} twice; give each a label of its own")
    return tuple(found)
