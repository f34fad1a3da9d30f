"""Where sentences begin and end: by punctuation, capitals and a list of abbreviations, for European scripts and CJK."""

import re
from dataclasses import dataclass

_ABBREVIATIONS = frozenset(
    [
        "mr",
        "mrs",
        "ms",
        "dr",
        "prof",
        "st",
        "jr",
        "sr",
        "rev",
        "hon",
        "gen",
        "col",
        "lt",
        "capt",
        "sgt",
        "gov",
        "sen",
        "rep",
        "pres",
        "messrs",
        "mt",
        "ft",
        "vs",
        "cf",
        "ca",
        "e.g",
        "i.e",
        "al",
        "fig",
        "figs",
        "eq",
        "eqs",
        "sec",
        "no",
        "nos",
        "vol",
        "pp",
        "ed",
        "eds",
        "approx",
        "dept",
        "est",
        "inc",
        "ltd",
        "co",
        "corp",
        "jan",
        "feb",
        "mar",
        "apr",
        "jun",
        "jul",
        "aug",
        "sep",
        "sept",
        "oct",
        "nov",
        "dec",
        "u.s",
        "u.k",
        "a.m",
        "p.m",
    ]
)

_CLOSERS = "\"'”’»)\\]"
_OPENERS = "\"'“‘«(\\["

_END = re.compile(rf"[.!?…]+[{_CLOSERS}]*(?=\s)|[。！？][」』”]*|(?=\n[^\S\n]*\n)")
_NEXT = re.compile(rf"\s*(?:[-–—*•]\s*)?[{_OPENERS}]*(?P<first>\S)")
_LAST_WORD = re.compile(r"(?P<word>[\w.]+)\.$")


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence and where it stands: characters [start, end) of the text, the white space around it left out."""

    text: str
    start: int
    end: int


def sentences_of(text: str) -> list[Sentence]:
    """The sentences of a text in order; between them is white space alone."""
    found: list[Sentence] = []
    start = 0
    for match in _END.finditer(text):
        if match.end() > start and _ends_here(text, match):
            _add(found, text, start, match.end())
            start = match.end()
    _add(found, text, start, len(text))
    return found


def _add(found: list[Sentence], text: str, start: int, end: int) -> None:
    piece = text[start:end]
    if content := piece.strip():
        first = start + piece.index(content)
        found.append(Sentence(content, first, first + len(content)))


def _ends_here(text: str, match: re.Match[str]) -> bool:
    """Whether what could be the end of a sentence is one."""
    if match[0][:1] in ("", "。", "！", "？"):
        return True
    following = _NEXT.match(text, match.end())
    if following is None:
        return True
    if following["first"].islower():
        return False
    before = _LAST_WORD.search(text, max(0, match.start() - 20), match.start() + 1)
    if match[0] != "." or before is None:
        return True
    word = before["word"]
    initial = len(word) == 1 and word.isupper() and word != "I"
    return not initial and word.lower() not in _ABBREVIATIONS
