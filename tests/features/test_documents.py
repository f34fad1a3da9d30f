import pytest

from features.documents import Document, Status, canonical_text, text_key, text_status


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (None, Status.NULL),
        ("", Status.EMPTY),
        (" \t\r\n\u00a0\u2003", Status.EMPTY),  # no-break space and em space are white space
        ("a", Status.OK),
        ("\u200b", Status.OK),  # a zero-width space is no white space in Unicode
        ("naïve 文本 🙂", Status.OK),
        ("\ufeffbyte order mark", Status.OK),
        ("binary\0data", Status.NUL_CHARACTER),
        ("\udcff stray byte", Status.INVALID_UTF8),
        ("\udc80", Status.INVALID_UTF8),
        ("\udc7f", Status.LONE_SURROGATE),
        ("half \ud83d pair", Status.LONE_SURROGATE),
        ("\ud83d then \udcff", Status.LONE_SURROGATE),  # the first fault names the status
    ],
)
def test_a_text_is_scorable_when_a_tokenizer_can_read_it(text: str | None, status: Status) -> None:
    assert text_status(text) is status


def test_the_key_is_blake2b_of_the_utf8_bytes() -> None:
    # printf 'naïve' | b2sum -l 128
    assert text_key("naïve") == "7b633f5f88cb0dd8617039f481fe52e9"


def test_texts_that_differ_in_any_character_but_white_space_have_other_keys() -> None:
    texts = ["a", "A", "a b", "ab", "\u00e9", "e\u0301"]  # é composed and decomposed: other bytes
    assert len({text_key(text) for text in texts}) == len(texts)


@pytest.mark.parametrize("layout", ["one two", " one  two ", "one\ntwo", "one\r\n\r\n\ttwo\n", "one\u00a0two\u2003"])
def test_layout_is_no_part_of_a_text(layout: str) -> None:
    assert canonical_text(layout) == "one two"
    assert text_key(layout) == text_key("one two")


def test_only_the_text_decides_the_key() -> None:
    one, other = Document(id="1", text="same", label=0), Document(id="2", text="same", label=1)
    assert text_key(one.text) == text_key(other.text)


def test_a_text_that_utf8_cannot_write_has_no_key() -> None:
    with pytest.raises(UnicodeEncodeError, match="surrogates not allowed"):
        text_key("\ud83d")
