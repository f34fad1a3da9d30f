"""RAID's alternative spelling: American spellings become British ones (Dugan et al. 2024, arXiv 2405.07940).

RAID looks words up in a list; here a short list holds what follows no rule, and rules make the rest: -ize and -yze with
-s, -or with -our, -er with -re, and the l that doubles before a suffix.
"""

import random
import re
from functools import cache

from detect.adversarial.attack import AttackMeans
from detect.adversarial.word_lists import word_list
from detect.adversarial.words import TextChange, chosen, like, with_words, words_of

_IZE = re.compile(r"(?P<stem>[a-z]{3,})iz(?P<end>e|es|ed|ing|er|ers|able|ation|ations|ational|ationally)")
_YZE = re.compile(r"(?P<stem>[a-z]*[lr])yz(?P<end>e|es|ed|ing|er|ers)")
_OUR_ENDS = [
    "",
    "s",
    "ed",
    "ing",
    "ings",
    "er",
    "ers",
    "able",
    "ably",
    "ability",
    "ful",
    "fully",
    "less",
    "al",
    "ally",
    "hood",
    "hoods",
    "ly",
    "y",
    "ism",
    "ist",
    "ists",
    "ite",
    "ites",
    "some",
    "blind",
]
_RE_ENDS = {
    "": "re",
    "s": "res",
    "ed": "red",
    "ing": "ring",
    "piece": "repiece",
    "pieces": "repieces",
    "fold": "refold",
}
_APOSTROPHE = re.compile("(['\u2019])")
_L_ENDS = ("ed", "ing", "er", "ers", "or", "ors", "ings")


def alternative_spelling(means: AttackMeans) -> TextChange:
    """American spellings become British; strength is the share of the words that have another spelling."""
    return TextChange("alternative_spelling", _alternative_spelling)


@cache
def british(word: str) -> str | None:
    """The British spelling of a lower-case word, where that is another one."""
    base, *genitive = _APOSTROPHE.split(word, maxsplit=1)
    found = word_list("british_spellings").get(base)
    other = found[0] if found else _like_organise(base) or _by_stem(base)
    return other and "".join([other, *genitive])


def _like_organise(word: str) -> str | None:
    if found := _YZE.fullmatch(word):
        return f"{found['stem']}ys{found['end']}"
    found = _IZE.fullmatch(word)
    if found is None or f"{found['stem']}ize" in word_list("british_stems")["not_ize"]:
        return None
    if found["stem"].endswith("s") and found["stem"][:-1] not in word_list("british_stems")["size"]:
        return None
    return f"{found['stem']}is{found['end']}"


def _by_stem(word: str) -> str | None:
    stems = word_list("british_stems")
    for cut in range(len(word), 3, -1):
        stem, end = word[:cut], word[cut:]
        if stem in stems["or"] and end in _OUR_ENDS:
            return f"{stem[:-2]}our{end}"
        if stem in stems["er"] and end in _RE_ENDS:
            return stem[:-2] + _RE_ENDS[end]
        if stem in stems["l"] and end in _L_ENDS:
            return f"{stem}l{end}"
    return None


def _alternative_spelling(text: str, strength: float, rng: random.Random) -> str:
    words = words_of(text)
    changes = {
        index: like(word.text, other) for index, word in enumerate(words) if (other := british(word.text.lower()))
    }
    return with_words(text, words, {index: changes[index] for index in chosen(rng, list(changes), strength)})
