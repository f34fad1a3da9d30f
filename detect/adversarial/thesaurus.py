"""Synonyms by hand, with their inflections, and the simple part-of-speech check of all word substitutions."""

import re
from collections import defaultdict
from functools import cache
from typing import Literal

from detect.adversarial.word_lists import word_list, word_rows

Form = Literal["past", "participle", "plural", "ing", "ly", "base"]
"""What the ending of an English word says of its part of speech; "plural" is also a verb's third person, and "past" a
participle where that is the same."""

_ONE_SYLLABLE = re.compile(r"[^aeiou]*[aeiou][bdgmnprt]")
_LEAST_SHARED = 4
_NEGATIONS = ("un", "in", "im", "il", "ir", "dis", "non", "mis", "de")


@cache
def function_words() -> frozenset[str]:
    """Words that carry grammar: but for what the thesaurus says, nothing replaces them and they replace nothing."""
    return frozenset(word for row in word_rows("function_words") for word in row)


@cache
def form_of(word: str) -> Form:
    """The form of a lower-case word, by its ending and a list of exceptions."""
    if word in (listed := _listed_forms()):
        return listed[word]
    if word.endswith("ed") and len(word) > 3:
        return "past"
    if word.endswith("ing") and len(word) > 4:
        return "ing"
    if word.endswith("ly") and len(word) > 3:
        return "ly"
    return "plural" if word.endswith("s") and not word.endswith(("ss", "ous", "us")) and len(word) > 3 else "base"


@cache
def _listed_forms() -> dict[str, Form]:
    forms: tuple[Form, ...] = ("past", "participle", "plural", "base")
    return {word: form for form in forms for row in word_rows("word_forms") if row[0] == form for word in row[1:]}


def same_lemma(word: str, other: str) -> bool:
    """Whether two words begin alike so far that one is likely made of the other."""
    shared = next((i for i, (a, b) in enumerate(zip(word, other, strict=False)) if a != b), min(len(word), len(other)))
    return shared >= max(_LEAST_SHARED, 0.6 * min(len(word), len(other)))


def may_replace(word: str, other: str) -> bool:
    """Whether a lower-case word agrees with another in form, and neither is a function word, kin or an opposite."""
    return (
        word != other
        and _agree(word, other)
        and not {word, other} & function_words()
        and not same_lemma(word, other)
        and not _opposite(word, other)
    )


def _agree(word: str, other: str) -> bool:
    """Whether two words have one form; a past on -ed may also be a participle."""
    forms = {form_of(word): word, form_of(other): other}
    return len(forms) == 1 or (forms.keys() == {"past", "participle"} and forms["past"] not in _listed_forms())


def _opposite(word: str, other: str) -> bool:
    opposites = word_list("antonyms")
    if other in (prefix + word for prefix in _NEGATIONS) or word in (prefix + other for prefix in _NEGATIONS):
        return True
    return other in opposites.get(word, ()) or word in opposites.get(other, ())


@cache
def _synonyms() -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for part, *group in word_rows("synonyms"):
        for inflected in zip(*(_inflections(part, word) for word in group), strict=True):
            first, *others = inflected
            if first:
                found[first] += [other for other in others if other]
            for other in others:  # the first of a group may stand for the rest, these not always for each other
                if first and other:
                    found[other].append(first)
    return {word: list(dict.fromkeys(other for other in others if other != word)) for word, others in found.items()}


def synonyms(word: str) -> list[str]:
    """Words by hand for a lower-case word, closest first, in its form."""
    return [other for other in _synonyms().get(word, []) if not _opposite(word, other)]


def _inflections(part: str, word: str) -> tuple[str | None, ...]:
    """The forms of a base form, each in a place of its own; None for one that is no rule's."""
    irregular = word in word_list("word_forms")["irregular"]
    if part == "n":
        return word, None if irregular else _with_s(word)
    if part != "v":
        return (word,)
    if irregular:
        return word, _with_s(word), None, None
    return word, _with_s(word), _with_ending(word, "ed"), _with_ending(word, "ing")


def _with_s(word: str) -> str:
    if re.search(r"[^aeiou]y$", word):
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "z", "ch", "sh")) else "s")


def _with_ending(word: str, ending: str) -> str:
    if word.endswith("e"):
        return word[:-1] + ending
    if ending == "ed" and re.search(r"[^aeiou]y$", word):
        return word[:-1] + "ied"
    if _ONE_SYLLABLE.fullmatch(word) or word in word_list("word_forms")["doubled"]:
        return word + word[-1] + ending
    return word + ending
