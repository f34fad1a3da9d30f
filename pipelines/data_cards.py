"""Data cards: what is known of a corpus, as Markdown with YAML front matter that loaders are driven by."""

import difflib
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from features.errors import InputError, UsageError

BLANK = "FILL IN:"
"""How a value starts that only a person can give; `DataCard.blanks` finds them."""

PACKAGED_CARDS = Path(__file__).resolve().parents[1] / "data_cards"
"""The cards that ship, beside the packages: in a checkout and in an installation alike."""

ANY_OTHER = "*"
"""Key of `label_mapping` for every raw label that it does not name."""

_LABELS = {"human": 0, "machine": 1}
_TEXTS = ("name", "title", "license", "source", "citation", "language", "layout")
_MAPPINGS = ("columns", "label_mapping", "splits")
_REQUIRED = (*_TEXTS, *_MAPPINGS)
_COUNTS = ("rows", "human", "machine")
_TALLIES = ("domains", "generators", "attacks")
_KNOWN = (*_REQUIRED, *_COUNTS, *_TALLIES, "files", "fields", "sha256", "verified")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_FRONT_MATTER = re.compile(r"---\r?\n(.*?\n)---[ \t]*\r?\n(.*)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class DataCard:
    """One corpus: what it is, where it comes from, how its files are read.

    `layout` names the loader. `files` are patterns of the files it reads (`pipelines/layouts/files.py`),
    `label_mapping` says what the corpus' own labels mean in ours (0 human, 1 machine), `fields` says under which
    names a table has our columns. `rows`, `human`, `machine` and the tallies are of the one file that a card
    describes and are None or empty where it describes files that are fetched elsewhere. `sha256` is of that one
    file, or of several by their name.
    """

    name: str
    title: str
    license: str
    source: str
    citation: str
    language: str
    layout: str
    columns: Mapping[str, str]
    label_mapping: Mapping[str, int]
    splits: Mapping[str, Any]
    rows: int | None = None
    human: int | None = None
    machine: int | None = None
    domains: Mapping[str, int] = field(default_factory=dict)
    generators: Mapping[str, int] = field(default_factory=dict)
    attacks: Mapping[str, int] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    fields: Mapping[str, str] = field(default_factory=dict)
    sha256: Mapping[str, str] = field(default_factory=dict)
    verified: str = ""
    prose: str = ""
    path: Path = Path()
    digest: str = ""  # SHA-256 of the card itself

    @property
    def describes_a_file(self) -> bool:
        """Whether the card counts the rows of one file, so that the file can be compared with it."""
        return self.rows is not None

    @property
    def blanks(self) -> list[str]:
        """Names of what still has to be filled in by a person."""
        values: dict[str, object] = {name: getattr(self, name) for name in _TEXTS} | {"prose": self.prose}
        return [name for name, value in values.items() if BLANK in str(value)]

    def label_of(self, raw: object) -> int | None:
        """0 human or 1 machine for a label as the corpus has it; None if the card does not say."""
        key = "" if raw is None else str(raw).strip()
        return self.label_mapping.get(key, self.label_mapping.get(ANY_OTHER) if key else None)


def load_card(path: Path) -> DataCard:
    """Read a card.

    Raises:
        InputError: naming everything that is wrong with it at once.
    """
    try:
        content = path.read_bytes()
        text = content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the data card {path}: {error}") from error
    match = _FRONT_MATTER.fullmatch(text)
    if match is None:
        raise InputError(f"{path} is not a data card: expected YAML between two lines '---', then prose")
    try:
        front = yaml.safe_load(match[1])
    except yaml.YAMLError as error:
        raise InputError(f"the front matter of {path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(front, dict):
        raise InputError(f"the front matter of {path} is {type(front).__name__}, expected 'name: value' lines")
    if problems := list(_problems(front, path.stem)):
        raise InputError(f"the data card {path} is wrong: {'; '.join(problems)}")
    return _card(front, match[2], path, hashlib.sha256(content).hexdigest())


def _problems(front: Mapping[Any, Any], stem: str) -> Iterator[str]:
    """Everything that keeps front matter from being a card."""
    missing = [name for name in _REQUIRED if front.get(name) in (None, "", {})]
    if missing:
        yield f"it lacks {', '.join(missing)}"
    for name in front:
        if name not in _KNOWN:
            close = difflib.get_close_matches(str(name), _KNOWN, n=1)
            yield f"unknown field {name!r}" + (f", did you mean {close[0]!r}?" if close else "")
    for name in (*_MAPPINGS, *_TALLIES, "fields"):
        if front.get(name) is not None and not isinstance(front[name], dict):
            yield f"{name} is {front[name]!r}, expected 'key: value' lines"
    for name in _COUNTS:
        if front.get(name) is not None and type(front[name]) is not int:
            yield f"{name} is {front[name]!r}, expected a whole number"
    files, sha256 = front.get("files") or "", front.get("sha256") or ""
    if not isinstance(files, str | list):
        yield f"files is {files!r}, expected a name or a list of names"
    if not isinstance(sha256, str | dict):
        yield f"sha256 is {sha256!r}, expected a hash or 'file: hash' lines"
    labels = front.get("label_mapping")
    for raw, meaning in labels.items() if isinstance(labels, dict) else ():
        if not isinstance(meaning, str) or meaning not in _LABELS:
            yield f"label_mapping says {raw!r} is {meaning!r}, expected human or machine"
    if front.get("name") and not _NAME.fullmatch(str(front["name"])):
        yield f"name is {front['name']!r}, expected letters, digits, '.', '_' and '-'"
    elif front.get("name") and str(front["name"]) != stem:
        yield f"name is {front['name']!r}, but the file is {stem}.md"
    yield from _miscounts(front)


def _miscounts(front: Mapping[Any, Any]) -> Iterator[str]:
    rows = front.get("rows")
    if type(rows) is not int:
        return
    if type(front.get("human")) is int and type(front.get("machine")) is int:
        both = front["human"] + front["machine"]
        if both != rows:
            yield f"human and machine add up to {both:,}, rows is {rows:,}"
    for name in (*_TALLIES, "splits"):
        tally = front.get(name)
        if isinstance(tally, dict) and tally and all(type(count) is int for count in tally.values()):
            total = sum(tally.values())
            if total != rows:
                yield f"{name} add up to {total:,}, rows is {rows:,}"


def _card(front: Mapping[str, Any], prose: str, path: Path, digest: str) -> DataCard:
    sha256 = front.get("sha256") or {}
    files = front.get("files") or ()
    values: dict[str, Any] = {name: str(front[name]) for name in _TEXTS}
    values |= {name: front.get(name) for name in _COUNTS}
    values |= {
        name: {str(key): value for key, value in (front.get(name) or {}).items()}
        for name in (*_TALLIES, "splits", "columns", "fields")
    }
    return DataCard(
        **values,
        label_mapping={str(raw): _LABELS[meaning] for raw, meaning in front["label_mapping"].items()},
        files=(files,) if isinstance(files, str) else tuple(map(str, files)),
        sha256={"": sha256} if isinstance(sha256, str) else dict(sha256),
        verified=str(front.get("verified") or ""),
        prose=prose.strip(),
        path=path,
        digest=digest,
    )


def card_folders(given: str | None) -> list[Path]:
    """Where cards are looked for, first wins: the folder given or ./data_cards, then the cards that ship.

    Raises:
        UsageError: when the folder given is none.
    """
    if given is not None and not Path(given).is_dir():
        raise UsageError(f"--cards {given} is not a folder; give one that holds cards (*.md)")
    own = Path(given) if given is not None else Path("data_cards")
    folders = [own] if own.is_dir() else []
    return folders + [PACKAGED_CARDS] * all(folder.resolve() != PACKAGED_CARDS for folder in folders)


def card_paths(folders: Sequence[Path]) -> dict[str, Path]:
    """The file of each card by its name, sorted; a name in an earlier folder hides the same in a later one."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in folder.glob("*.md"):
            if path.name != "README.md":
                found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def find_card(name: str, folders: Sequence[Path]) -> DataCard:
    """The card of that name.

    Raises:
        UsageError: when there is none, naming those that there are.
        InputError: when it is not a valid card.
    """
    paths = card_paths(folders)
    if name not in paths:
        close = difflib.get_close_matches(name, paths, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise UsageError(f"no data card {name!r}; {hint}there are {', '.join(paths)} ('pawn data new' writes one)")
    return load_card(paths[name])


def write_card(path: Path, front: Mapping[str, Any], prose: str) -> None:
    """Write a new card; an existing file is not touched.

    Raises:
        UsageError: when there is such a file.
        OSError: when the disk refuses.
    """
    text = yaml.safe_dump(dict(front), sort_keys=False, allow_unicode=True, width=116)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(f"---\n{text}---\n\n{prose.strip()}\n")
    except FileExistsError as error:
        raise UsageError(f"{path} exists already; remove it, or name another with -o") from error
