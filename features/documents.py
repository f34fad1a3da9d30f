"""Documents, their identity, and what makes a text scorable."""

import hashlib
from dataclasses import dataclass
from enum import StrEnum

MIN_TOKENS = 16
"""Shortest text that gets a score, in tokens: below this the metrics of a text say almost nothing."""


class Status(StrEnum):
    """What became of one row of the input. Everything but `OK` has no score."""

    OK = "ok"
    NULL = "null"  # the text is missing
    EMPTY = "empty"  # no character but white space
    TOO_SHORT = "too_short"  # fewer than MIN_TOKENS tokens
    NOT_TEXT = "not_text"  # a number, list or object where a text was expected
    INVALID_UTF8 = "invalid_utf8"  # bytes that are not UTF-8
    LONE_SURROGATE = "lone_surrogate"  # half of a UTF-16 pair: not a character
    NUL_CHARACTER = "nul_character"  # U+0000 in the text: binary data or a wrong encoding
    INVALID_ROW = "invalid_row"  # a line that is not JSON, or has more fields than the header


@dataclass(frozen=True, slots=True)
class Document:
    """One text and what is known of it.

    `label` is 0 for human and 1 for machine. Documents with the same `group` share a source (a pair, a
    prompt) and must stay on one side of any split.
    """

    id: str
    text: str
    label: int | None = None
    domain: str | None = None
    generator: str | None = None
    attack: str | None = None
    group: str | None = None


TEXT_VERSION = 1
"""Of `canonical_text`; part of the feature fingerprint."""


def canonical_text(text: str) -> str:
    """The text as it is read: every run of white space is one space, none at the ends.

    Layout is an accident of where a text was kept. In the corpora at hand 92% of one corpus' machine texts
    have a line break and none of its human ones: a detector that sees layout learns the corpus, not the
    writer, and extra spaces would be an attack.
    """
    return " ".join(text.split())


def text_key(text: str) -> str:
    """Identity of a text: 32 hex digits of BLAKE2b over its canonical form's UTF-8. Equal texts, equal keys."""
    return hashlib.blake2b(canonical_text(text).encode("utf-8"), digest_size=16).hexdigest()


def text_status(text: str | None) -> Status:
    """Whether a text can be given to a tokenizer, judged by its characters alone.

    Length in tokens is judged later, by who has the tokenizer (`Status.TOO_SHORT`). Bytes that were not
    UTF-8 are expected as `surrogateescape` left them (U+DC80 to U+DCFF).
    """
    if text is None:
        return Status.NULL
    if not text.strip():
        return Status.EMPTY
    if "\0" in text:
        return Status.NUL_CHARACTER
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        bad = ord(text[error.start])
        return Status.INVALID_UTF8 if 0xDC80 <= bad <= 0xDCFF else Status.LONE_SURROGATE
    return Status.OK
