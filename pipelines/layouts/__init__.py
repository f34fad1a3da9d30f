"""Layouts: how the files of a corpus, as they come from its source, become labelled texts."""

from collections.abc import Iterator, Sequence

from features.errors import InputError
from pipelines.data_cards import DataCard
from pipelines.layouts import pairs, tables
from pipelines.layouts.base import LabelledText, Layout, Rejected, Row
from pipelines.layouts.files import SourceFiles, find_files

LAYOUTS: dict[str, Layout] = {
    "one_form": tables.one_form,
    "table": tables.table,
    "mage": tables.mage,
    "raid": tables.raid,
    "detectrl": tables.detectrl,
    "m4gt": tables.m4gt,
    "m4": pairs.m4,
    "hc3": pairs.hc3,
    "fast_detectgpt": pairs.fast_detectgpt,
    "outfox": pairs.outfox,
    "ghostbuster": pairs.ghostbuster,
}
"""Layouts by the name that a card calls them."""

__all__ = ["LAYOUTS", "LabelledText", "Layout", "Rejected", "Row", "SourceFiles", "find_files", "layout_of", "rows_of"]


def layout_of(card: DataCard) -> Layout:
    """The loader that a card names.

    Raises:
        InputError: when there is none of that name.
    """
    if card.layout not in LAYOUTS:
        raise InputError(f"the data card {card.name} names the layout {card.layout!r}; known are {', '.join(LAYOUTS)}")
    return LAYOUTS[card.layout]


def files_of(card: DataCard, sources: Sequence[str]) -> SourceFiles:
    """The files that a card's layout reads, of what a person named.

    Raises:
        PawnError: when there is none, or one that must not be read.
    """
    if not card.files:
        raise InputError(f"the data card {card.name} has no 'files': it does not say which files to read")
    try:
        return find_files(sources, card.files)
    except InputError as error:
        if card.layout != "one_form":
            raise
        raise InputError(
            f"{error}; the card {card.name} is of a corpus in the one form already: for files as they come from their "
            "source take the card of the release ('pawn data list')"
        ) from error


def rows_of(card: DataCard, files: SourceFiles) -> Iterator[Row]:
    """Every row of every file, streaming, in order.

    Raises:
        InputError: where a file has not the structure of the card's layout.
    """
    read = layout_of(card)
    for file in files.files:
        yield from read(file, card)
