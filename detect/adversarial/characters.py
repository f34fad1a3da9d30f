"""RAID's attacks on characters (Dugan et al. 2024, arXiv 2405.07940, appendix E): what a reader hardly sees."""

import random

from detect.adversarial.attack import AttackMeans
from detect.adversarial.word_lists import word_list
from detect.adversarial.words import TextChange, chosen, how_many, with_words, words_of

ZERO_WIDTH_SPACE = "\u200b"


def homoglyph(means: AttackMeans) -> TextChange:
    """Letters become letters of other scripts that look the same; strength is the share of those that have one."""
    return TextChange("homoglyph", _homoglyph)


def zero_width_space(means: AttackMeans) -> TextChange:
    """A zero-width space (U+200B) after a character; strength is the share of characters."""
    return TextChange("zero_width_space", _zero_width_space)


def upper_lower(means: AttackMeans) -> TextChange:
    """The first letter of a word changes its case; strength is the share of words."""
    return TextChange("upper_lower", _upper_lower)


def whitespace(means: AttackMeans) -> TextChange:
    """More spaces beside spaces; strength is their number for each word of the text.

    The feature stage makes one space of every run of white space, so detectors that read features do not see this.
    """
    return TextChange("whitespace", _whitespace)


def _homoglyph(text: str, strength: float, rng: random.Random) -> str:
    twins = word_list("homoglyphs")
    places = [index for index, character in enumerate(text) if character in twins]
    picks = {index: rng.choice(twins[text[index]]) for index in places}
    taken = set(chosen(rng, places, strength))
    return "".join(picks[index] if index in taken else character for index, character in enumerate(text))


def _zero_width_space(text: str, strength: float, rng: random.Random) -> str:
    taken = set(chosen(rng, range(len(text)), strength))
    return "".join(
        character + ZERO_WIDTH_SPACE if index in taken else character for index, character in enumerate(text)
    )


def _upper_lower(text: str, strength: float, rng: random.Random) -> str:
    words = words_of(text)
    changes = {index: words[index].text[0].swapcase() + words[index].text[1:] for index in range(len(words))}
    cased = [index for index, change in changes.items() if change != words[index].text]
    return with_words(text, words, {index: changes[index] for index in chosen(rng, cased, strength)})


def _whitespace(text: str, strength: float, rng: random.Random) -> str:
    spaces = [index for index, character in enumerate(text) if character == " "]
    if not spaces:
        return text
    more = [0] * len(text)
    for _ in range(how_many(len(text.split()), strength)):
        more[rng.choice(spaces)] += 1  # with replacement, as in RAID
    return "".join(character + " " * count for character, count in zip(text, more, strict=True))
