"""Sentences: what ends one and what does not."""

import pytest

from detect.adversarial.sentences import sentences_of


@pytest.mark.parametrize(
    "expected",
    [
        ["One is here.", "Two follows!", "Is three?", "Yes…", "No."],
        ["Mr. J. Smith of St. Ives, e.g. Dr. No, paid $3.50 at 5 p.m. on Jan. 3.", "He left."],
        ["“Quite so.”", "(She agreed.)", '"Why?"', "Nobody knew."],
        ["He paused... and went on.", "The end"],
        ["See Fig. 3 and eq. 4.", "3 of them failed."],
        ["Then came I.", "It rained."],
        ["no capital. and no end"],
    ],
)
def test_sentences_are_found(expected: list[str]) -> None:
    assert [sentence.text for sentence in sentences_of(" ".join(expected))] == expected


def test_sentences_of_chinese_and_japanese_need_no_space() -> None:
    assert [sentence.text for sentence in sentences_of("今日は。元気ですか？はい。")] == [
        "今日は。",
        "元気ですか？",
        "はい。",
    ]


def test_an_empty_line_ends_a_sentence_and_a_line_break_does_not() -> None:
    found = sentences_of("A title\n \nA line\nthat goes on. Next")
    assert [sentence.text for sentence in found] == ["A title", "A line\nthat goes on.", "Next"]


@pytest.mark.parametrize("text", ["", " \n ", "...", "?! a", "x" * 50, "a. B. c\n\n\n\nD.  E"])
def test_sentences_and_white_space_make_up_the_text(text: str) -> None:
    found = sentences_of(text)
    assert all(text[sentence.start : sentence.end] == sentence.text for sentence in found)
    ends = [0, *(end for sentence in found for end in (sentence.start, sentence.end)), len(text)]
    assert [text[a:b].strip() for a, b in zip(ends[::2], ends[1::2], strict=True)] == [""] * (len(found) + 1)
