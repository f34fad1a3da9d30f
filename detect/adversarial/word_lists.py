"""The word lists that ship with the attacks. All are this project's own, written by hand."""

from functools import cache
from importlib.resources import files


@cache
def word_rows(name: str) -> list[list[str]]:
    """The lines of `words/NAME.txt`, each a list of words; lines that start with # are remarks."""
    content = (files("detect.adversarial") / "words" / f"{name}.txt").read_text("utf-8")
    return [line.split() for line in content.splitlines() if line.strip() and not line.startswith("#")]


@cache
def word_list(name: str) -> dict[str, list[str]]:
    """First word of each line -> the others."""
    return {first: others for first, *others in word_rows(name)}
