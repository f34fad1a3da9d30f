"""Mixing: whose sentences go where, and that labels stay true."""

import pytest

from detect.adversarial.catalog import attack_named
from detect.adversarial.sentences import sentences_of
from features.documents import Document
from features.errors import UsageError
from tests.detect.adversarial.attacked import WITHOUT


def text_of(letter: str, count: int) -> str:
    return " ".join(f"Sentence {letter}{index} is here." for index in range(count))


def made(letter: str, count: int, label: int | None, domain: str | None = "news", group: str | None = None) -> Document:
    return Document(id=letter, text=text_of(letter, count), label=label, domain=domain, group=group)


MACHINE = made("M", 8, 1)
HUMANS = [made("A", 9, 0), made("B", 10, 0)]


def mixed(documents: list[Document], strength: float = 0.25, seed: int = 0) -> list[str]:
    return [found.text for found in attack_named("mixing", WITHOUT).apply(documents, strength, seed)]


def letters(text: str) -> list[str]:
    return [sentence.text.split()[1][0] for sentence in sentences_of(text)]


@pytest.mark.parametrize(("strength", "replaced"), [(0.1, 1), (0.25, 2), (0.5, 4)])
def test_a_share_of_the_sentences_is_one_human_texts(strength: float, replaced: int) -> None:
    found = letters(mixed([MACHINE, *HUMANS], strength)[0])
    assert len(found) == 8
    assert found.count("M") == 8 - replaced
    assert len({letter for letter in found if letter != "M"}) == 1


def test_human_texts_are_mixed_with_other_human_texts_only() -> None:
    _, first, second = mixed([MACHINE, *HUMANS], 0.5)
    assert set(letters(first)) == {"A", "B"} == set(letters(second))


def test_partners_are_of_the_same_domain_and_another_group() -> None:
    documents = [
        made("M", 8, 1, group="g"),
        made("A", 8, 0, "law"),
        made("B", 8, 0, group="g"),
        made("C", 8, None, None),
    ]
    assert mixed(documents, 0.5) == [document.text for document in documents]


def test_no_sentence_comes_twice_and_short_partners_give_what_they_have() -> None:
    found = mixed([MACHINE, made("A", 2, 0)], 0.5)[0]
    assert letters(found).count("A") == 2
    assert len({sentence.text for sentence in sentences_of(found)}) == 8


def test_a_text_of_one_sentence_or_none_stays() -> None:
    alone = [made("M", 1, 1), Document(id="e", text="", label=1, domain="news"), *HUMANS]
    assert mixed(alone, 0.5)[:2] == [alone[0].text, ""]


def test_the_order_of_the_batch_changes_nothing() -> None:
    assert mixed([MACHINE, *HUMANS]) == mixed([MACHINE, *HUMANS[::-1]])[:1] + mixed([MACHINE, *HUMANS])[1:]


def test_white_space_between_sentences_stays() -> None:
    human = Document(id="h", text="One. Two. Three.", label=0)
    machine = Document(id="m", text="First.\n\nSecond.  Third.\nFourth.\n", label=1)
    found = mixed([machine, human], 0.5)[0]
    assert [gap for gap in ("\n\n", "  ", "\n") if gap in found] == ["\n\n", "  ", "\n"]
    assert found.endswith(".\n")


def test_a_machine_text_must_stay_mostly_a_machines() -> None:
    with pytest.raises(UsageError, match=r"mixing has a strength from 0 to 0\.5 \(share of sentences\), got 0\.75"):
        mixed([MACHINE, *HUMANS], 0.75)
