"""Whether a file is what its card says, or has the one form."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from features.errors import UsageError
from pipelines import formats
from pipelines.conversion import corpus_facts
from pipelines.data_cards import DataCard, card_paths, find_card, load_card
from pipelines.inputs import resolve
from pipelines.layouts import LAYOUTS, SourceFiles, files_of, rows_of
from pipelines.layouts.files import SourceFile, file_sha256
from pipelines.layouts.tables import ONE_FORM
from pipelines.profile import TALLIES, Profile, profile_of

ONE_FORM_CARD = DataCard(
    name="one_form",
    title="any corpus in the one form",
    license="",
    source="",
    citation="",
    language="",
    layout="one_form",
    columns={},
    label_mapping={"0": 0, "1": 1},
    splits={},
)
"""What a file without a card is held to."""


@dataclass
class Verdict:
    """The checks of one source: each with whether it holds and what was found, and what the corpus is like."""

    subject: str
    checks: list[tuple[bool, str]] = field(default_factory=list)
    profile: Profile | None = None
    skipped: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether every check holds."""
        return all(holds for holds, _ in self.checks)


def check_card(card: DataCard) -> Verdict:
    """Whether a card is complete; that it is well-formed was seen when it was read."""
    blanks = card.blanks
    known = "" if card.sha256 else " (no SHA-256 known: by their form alone)"
    checks = [
        (not blanks, f"still to be filled in: {', '.join(blanks)}" if blanks else "nothing left to be filled in"),
        (card.layout in LAYOUTS, f"layout {card.layout!r}" + ("" if card.layout in LAYOUTS else " is unknown")),
        (bool(card.files), f"files {', '.join(card.files)}{known}" if card.files else "it names no files"),
    ]
    return Verdict(f"card {card.name}", checks)


def check_sources(card: DataCard, sources: Sequence[str]) -> Verdict:
    """Whether sources are what a card says: hashes, columns, labels, and the counts where the card has them.

    Raises:
        PawnError: when they cannot be read as the card says at all.
    """
    # A card that counts the rows of one file is true of that file under any name.
    whole_file = card.describes_a_file and len(sources) == 1 and Path(sources[0]).is_file()
    files = _single(sources[0]) if whole_file else files_of(card, sources)
    verdict = Verdict(f"{', '.join(sources)} against the card {card.name}", skipped=files.skipped)
    verdict.checks += _hash_checks(card, files)
    verdict.profile = profile_of(rows_of(card, files))
    verdict.checks += _label_checks(verdict.profile)
    if card.describes_a_file:
        verdict.checks += _column_checks(card, files)
        verdict.checks += _count_checks(card, verdict.profile)
        if card.layout == "one_form":
            verdict.checks += _id_checks(files)
    return verdict


def check_one_form(path: str) -> Verdict:
    """Whether a file has the one form: its columns, labels 0 and 1, unique ids, texts that can be scored.

    Raises:
        PawnError: when it cannot be read, or lacks a column.
    """
    files = _single(path)
    facts = corpus_facts(Path(path))
    origin = f" (converted by the card {facts.get('card')})" if facts else ""
    verdict = Verdict(f"{path} against the one form{origin}", profile=profile_of(rows_of(ONE_FORM_CARD, files)))
    assert verdict.profile is not None
    verdict.checks += [(True, f"columns {', '.join(ONE_FORM)}")]
    verdict.checks += _label_checks(verdict.profile) + _id_checks(files)
    return verdict


def _single(path: str) -> SourceFiles:
    if not Path(path).is_file():
        raise UsageError(f"{path} is neither a file nor the name of a data card ('pawn data list' lists those)")
    return SourceFiles([SourceFile(Path(path), Path(path).name, {})], [])


def _hash_checks(card: DataCard, files: SourceFiles) -> Iterator[tuple[bool, str]]:
    for file in files.files:
        expected = card.sha256.get(file.path.name) or card.sha256.get("")
        if expected is not None:
            found = file_sha256(file.path)
            same = found == expected
            yield same, f"SHA-256 of {file.name}" + ("" if same else f" is {found}, the card says {expected}")


def _column_checks(card: DataCard, files: SourceFiles) -> Iterator[tuple[bool, str]]:
    for file in files.files:
        found = [name for name in formats.columns(resolve([str(file.path)], None, None)[0][0]) if name]
        if found == list(card.columns):
            yield True, f"columns {', '.join(found)}"
        else:
            yield False, f"columns of {file.name} are {found}, the card says {list(card.columns)}"


def _label_checks(profile: Profile) -> list[tuple[bool, str]]:
    rejected = ", ".join(f"{count:,} {reason}" for reason, count in profile.rejected.most_common())
    return [
        (not profile.rejected, f"rows that are no labelled text: {rejected or 'none'}"),
        (bool(profile.labels[0] and profile.labels[1]), f"{profile.labels[0]:,} human, {profile.labels[1]:,} machine"),
        (not profile.contradictory, f"{profile.contradictory:,} texts are under both labels"),
    ]


def _count_checks(card: DataCard, profile: Profile) -> Iterator[tuple[bool, str]]:
    found = {"rows": profile.texts, "human": profile.labels[0], "machine": profile.labels[1]}
    for name, count in found.items():
        expected = getattr(card, name)
        if expected is not None:
            same = count == expected
            yield same, f"{name} {count:,}" + ("" if same else f", the card says {expected:,}")
    for name in TALLIES:
        expected = getattr(card, name)
        if expected and all(type(count) is int for count in expected.values()):
            tally = dict(profile.tallies[name])
            differ = [key for key in tally.keys() | expected.keys() if tally.get(key) != expected.get(key)]
            shown = ", ".join(f"{key} {tally.get(key, 0):,} (card: {expected.get(key, 0):,})" for key in sorted(differ))
            yield not differ, f"{name}" + (f": {shown}" if differ else "")


def _id_checks(files: SourceFiles) -> list[tuple[bool, str]]:
    import polars as pl

    path = files.files[0].path
    if path.suffix != ".parquet":
        return []
    ids = pl.scan_parquet(path).select(pl.col("id").is_duplicated().sum()).collect().item()
    return [(ids == 0, f"{ids:,} ids occur more than once")]


def card_of_file(path: Path, folders: Sequence[Path]) -> DataCard | None:
    """The card of a converted file, or of a file that a card has the hash of; None where nothing is known."""
    facts = corpus_facts(path)
    if facts is not None and facts.get("card") in card_paths(folders):
        return find_card(str(facts["card"]), folders)
    digest = file_sha256(path)
    cards = (load_card(found) for found in card_paths(folders).values())
    return next((card for card in cards if digest in card.sha256.values()), None)
