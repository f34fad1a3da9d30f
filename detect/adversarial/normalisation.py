"""The defence against attacks on characters: a text as its reader sees it, in the letters that its writer meant.

Undone are invisible characters, letters of other scripts among Latin ones, styled Latin letters and unusual spaces.
Real text in other scripts stays as it is: what makes a letter suspect is its company.
"""

import re
import unicodedata
from functools import cache

from detect.adversarial.word_lists import word_list

_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1950-\u19ff\u3040-\u30ff\u4e00-\u9fff"
"""Thai, Lao, Burmese, Khmer, Tai, Japanese and Chinese: a zero-width space there says where a line may break."""

_INVISIBLE = re.compile(
    "[\u00ad\u034f\u2060-\u2064\u206a-\u206f\u3164\ufeff\uffa0]"
    "|(?<![\u1100-\u11ff])[\u115f\u1160](?![\u1100-\u11ff])"  # fillers of Korean syllables
    "|(?<![\u1780-\u17ff])[\u17b4\u17b5]"  # Khmer vowels
    "|(?<![\u1800-\u18af])[\u180b-\u180f]"  # Mongolian forms of letters
    f"|(?<![{_UNSPACED}])\u200b|\u200b(?![{_UNSPACED}])"
    "|(?<![\U0001f3f4\U000e0020-\U000e007f])[\U000e0000-\U000e007f]"  # tags, but for those of flags
)
_DIRECTION = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_JOINERS = re.compile("[\u200c\u200d]+")
_VARIATION = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]+")
_SPACE = re.compile("[\u00a0\u2000-\u200a\u202f\u205f]|(?<![\u2801-\u28ff])\u2800(?![\u2801-\u28ff])")

_EAST_ASIAN = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_STYLES = "\U0001d400-\U0001d7ff\u2102-\u214e\u24b6-\u24e9\U0001f110-\U0001f189"
_STYLED = re.compile(f"[{_STYLES}](?: ?[{_STYLES}])+")
"""Runs of mathematical or circled letters; one alone may well be a formula's."""
_FULL_WIDTH = re.compile("[\uff10-\uff19\uff21-\uff3a\uff41-\uff5a]+")
_LIGATURE = re.compile("[\ufb00-\ufb06]")

_LETTERS = re.compile(r"[^\W\d_]+")
_SYMBOLS = frozenset("ανρικχγυ")
"""Greek letters that stand in Latin text for themselves, as in hν and χ²: a few letters beside them are no evidence."""


def normalised(text: str) -> str:
    """The text without the tricks of characters; ordinary text of any script comes back as it was, in NFC.

    Applied twice it gives what it gives once. A word in another script that looks Latin from end to end, alone among
    Latin words, is taken for a trick, although it may be a name. Line breaks and the number of spaces stay.
    """
    if text.isascii():
        return text
    while (changed := _once(text)) != text:  # what is undone is evidence for what is left
        text = changed
    return text


def _once(text: str) -> str:
    text = _plain_letters(unicodedata.normalize("NFC", _visible(text)))
    return unicodedata.normalize("NFC", _in_latin(_SPACE.sub(" ", text)))


def _visible(text: str) -> str:
    """Without characters that nobody sees, but for those that a script or an emoji needs."""
    text = _INVISIBLE.sub("", text)
    if not any(unicodedata.bidirectional(character) in ("R", "AL") for character in text):
        text = _DIRECTION.sub("", text)
    text = _VARIATION.sub(lambda found: found[0] if _has_variants(_before(text, found)) else "", text)
    return _JOINERS.sub(lambda found: found[0] if _joins(_before(text, found)) else "", text)


def _before(text: str, found: re.Match[str]) -> str:
    return text[found.start() - 1] if found.start() else ""


def _has_variants(character: str) -> bool:
    """Whether a variation selector says something of a character: symbols, keycaps, ideographs."""
    return character != "" and (
        character in "0123456789#*" or unicodedata.category(character) in ("So", "Sm", "Po", "Lo")
    )


def _joins(character: str) -> bool:
    """Whether a joiner or non-joiner has a meaning after a character: in scripts with forms, after marks and emoji."""
    return character != "" and unicodedata.category(character) in ("Lo", "Lm", "Mn", "Mc", "So", "Sk")


def _plain_letters(text: str) -> str:
    """Styled Latin letters and ligatures as plain ones; full-width ones are at home in East Asian text."""
    text = _LIGATURE.sub(_compatible, _STYLED.sub(_compatible, text))
    return text if _EAST_ASIAN.search(text) else _FULL_WIDTH.sub(_compatible, text)


def _compatible(found: re.Match[str]) -> str:
    plain = unicodedata.normalize("NFKC", found[0])
    return plain if plain.isascii() else found[0]


@cache
def _latin() -> dict[str, str]:
    return {twin: letter for letter, twins in word_list("confusables").items() for twin in twins}


def _in_latin(text: str) -> str:
    """The text with the words that are Latin ones in disguise as such."""
    words = list(_LETTERS.finditer(text))
    kinds = [_kind(word[0]) for word in words]
    trusted = kinds.count("latin") + kinds.count("mixed") > kinds.count("foreign")
    before, behind = _after_foreign(kinds), _after_foreign(kinds[::-1])[::-1]
    among_foreign = [one or other for one, other in zip(before, behind, strict=True)]
    parts, done = [], 0
    for word, kind, real in zip(words, kinds, among_foreign, strict=True):
        if kind == "mixed" or (kind == "lookalike" and trusted and not real):
            parts += [text[done : word.start()], "".join(_latin().get(letter, letter) for letter in word[0])]
            done = word.end()
    return "".join([*parts, text[done:]])


def _kind(word: str) -> str:
    """What a word's letters say of it.

    "latin": nothing to undo; "mixed": letters of more than one script that all look Latin; "lookalike": letters of
    another script alone that all look Latin; "foreign": letters that look like no other.
    """
    if word.isascii():
        return "latin"
    odd = [letter for letter in word if letter in _latin()]
    known = sum(_script(letter) == "LATIN" and not _phonetic(letter) for letter in word if letter not in _latin())
    if known + len(odd) < len(word):
        return "foreign"
    if not odd:
        return "latin"
    if _SYMBOLS.issuperset(odd) and (len(word) < 4 or known < 2):
        return "latin" if known else "foreign"
    scripts = {_script(letter) for letter in word}
    if len(scripts) > 1 or scripts == {"LATIN"}:
        return "mixed"
    return "foreign" if _SYMBOLS.intersection(odd) else "lookalike"


@cache
def _script(letter: str) -> str:
    return unicodedata.name(letter, "").partition(" ")[0]


def _phonetic(letter: str) -> bool:
    """Whether a Latin letter belongs to phonetic alphabets, whose other letters look like plain ones by right."""
    return 0x250 <= ord(letter) < 0x1E00


def _after_foreign(kinds: list[str]) -> list[bool]:
    """Of each word, whether the nearest one before it that is no look-alike itself is of another script."""
    found, last = [], ""
    for kind in kinds:
        found.append(last == "foreign")
        if kind != "lookalike":
            last = kind
    return found
