"""Attacked texts for people to read, beside what they were."""

import unicodedata
from collections.abc import Sequence

import polars as pl
from rapidfuzz.distance import Prefix

from features.documents import Document
from pipelines.attacked_texts import TextSet

SHOWN_CHARACTERS = 240
_LONG_ENOUGH = 200  # characters


def chosen_samples(documents: Sequence[Document]) -> list[int]:
    """One machine and one human document, the shortest that say something: numbers of the documents."""
    found = []
    for label in (1, 0):
        own = [index for index, document in enumerate(documents) if document.label == label]
        own.sort(key=lambda index: (len(documents[index].text) < _LONG_ENOUGH, len(documents[index].text)))
        found += own[:1]
    return found


def sample_section(text_set: TextSet, before: Sequence[Document], texts: pl.DataFrame, scored: pl.DataFrame) -> str:
    """Markdown of a few attacked texts: the stretch where the first change is, before and after, and the scores.

    Args:
        text_set: what was done.
        before: the documents.
        texts: what became of them, in order: columns `ATTACKED_SCHEMA`.
        scored: rows of `SCORED_SCHEMA`, before and after, of these documents among others.
    """
    parts = [f"## {text_set.shown}"]
    for index in chosen_samples(before):
        document, text = before[index], texts["text"][index]
        start = max(0, Prefix.similarity(document.text, text) - 60)
        own = scored.filter(id=document.id)
        parts += [
            f"{'machine' if document.label else 'human'}, edit distance {texts['edit_distance'][index]:.3f}; "
            + "; ".join(_scores(own)),
            *_change(document.text[start:], text[start:]),
        ]
    return "\n\n".join(parts)


def originals(documents: Sequence[Document]) -> str:
    """Markdown of the same documents as they were."""
    blocks = [
        f"{'machine' if documents[index].label else 'human'}\n\n{_block(documents[index].text)}"
        for index in chosen_samples(documents)
    ]
    return "\n\n".join(["# Samples", "Invisible characters are shown as `<U+200B>`.", "## clean", *blocks])


def _change(before: str, after: str) -> list[str]:
    """Both stretches, each under its name."""
    if before == after:
        return ["(unchanged)"]
    return ["before", _block(before), "after", _block(after)]


def _scores(own: pl.DataFrame) -> list[str]:
    """The scores of each detector, in words."""
    found = []
    for (detector,), rows in own.partition_by("detector", as_dict=True, maintain_order=True).items():
        scores = ["none" if score is None else f"{score:.3g}" for score in rows["score"]]
        found.append(f"{detector} {' to '.join(scores)}")
    return found


def _block(text: str) -> str:
    """An indented block, so that Markdown leaves the text alone, its beginning with what is invisible made visible."""
    visible = "".join(
        f"<U+{ord(c):04X}>" if unicodedata.category(c) in ("Cf", "Cc", "Zl", "Zp") and c != "\n" else c
        for c in text[:SHOWN_CHARACTERS]
    )
    more = " ..." if len(text) > SHOWN_CHARACTERS else ""
    return "\n".join(f"    {line}" for line in (visible + more).split("\n"))
