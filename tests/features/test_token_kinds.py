import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE, WordPiece

from features.backbone import Backbone, load_tokenizer
from features.extractor import Extractor
from features.registry import resolve
from features.token_kinds import TOKEN_KINDS, WORD_EDGES, token_kinds

BYTE_LEVEL = {
    **{",": "comma", "Ġ,": "comma", ".": "end of sentence", "?": "end of sentence", '."': "end of sentence"},
    **{".âĢĿ": "end of sentence", ";": "other mark", "Ġ42": "other mark", "âĢľ": "other mark", "Ċ": "other mark"},
    **{"Ġ": "other mark", "Ġthe": "frequent word", "ing": "part of a word", "The": "part of a word"},
    **{"ĠThe": "capitalised word", "ĠÃīt": "capitalised word", "ĠÃ©t": "frequent word", "...": "other mark"},
}
"""Tokens as byte-level vocabularies spell them: “ is three bytes, É and é are two."""


def vocabulary(*tokens: str) -> dict[str, int]:
    return {token: number for number, token in enumerate(tokens)}


def named(tokenizer: Tokenizer) -> dict[str, str]:
    kinds = token_kinds(tokenizer)
    assert kinds.dtype == np.uint8
    return {token: TOKEN_KINDS[kinds[number]] for token, number in tokenizer.get_vocab().items()}


def test_kinds_of_a_byte_level_vocabulary() -> None:
    assert named(Tokenizer(BPE(vocabulary(*BYTE_LEVEL), []))) == BYTE_LEVEL


def test_kinds_of_a_vocabulary_of_pieces() -> None:
    expected = {"▁the": "frequent word", "▁The": "capitalised word", "ing": "part of a word", ",": "comma"}
    expected |= {"▁": "other mark", "!": "end of sentence", "▁1": "other mark"}
    assert named(Tokenizer(BPE(vocabulary(*expected), []))) == expected


def test_a_letter_that_marks_a_space_elsewhere_changes_nothing() -> None:
    expected = {"▁the": "frequent word", "▁The": "capitalised word", "Ġ": "part of a word", "▁,": "comma"}
    assert named(Tokenizer(BPE(vocabulary(*expected), []))) == expected


def test_kinds_of_a_vocabulary_with_spaces_as_they_are() -> None:
    expected = {" the": "frequent word", " The": "capitalised word", "ing": "part of a word", " ,": "comma"}
    assert named(Tokenizer(BPE(vocabulary(*expected), []))) == expected


def test_kinds_of_a_vocabulary_that_marks_what_goes_on_with_a_word() -> None:
    expected = {"[UNK]": "frequent word", "the": "frequent word", "##ing": "part of a word", ".": "end of sentence"}
    expected |= {"##": "other mark", "Paris": "capitalised word", "##7": "other mark"}
    assert named(Tokenizer(WordPiece(vocabulary(*expected), unk_token="[UNK]"))) == expected


def test_words_are_rarer_the_later_they_were_learnt() -> None:
    tokens = [f"Ġw{'x' * number}" for number in range(WORD_EDGES[-1] + 1)]
    kinds = token_kinds(Tokenizer(BPE(vocabulary(*tokens), [])))
    names = ["frequent word", "common word", "uncommon word", "rare word"]
    for edge, before, after in zip(WORD_EDGES, names, names[1:], strict=False):
        assert [TOKEN_KINDS[kind] for kind in kinds[[edge - 1, edge]]] == [before, after]


def test_a_number_without_a_token_is_a_mark() -> None:
    kinds = token_kinds(Tokenizer(BPE({"Ġthe": 0, "Ġcat": 3}, [])))
    assert [TOKEN_KINDS[kind] for kind in kinds] == ["frequent word", "other mark", "other mark", "frequent word"]
    assert token_kinds(Tokenizer(BPE({}, []))).shape == (0,)


@pytest.mark.slow
def test_features_say_what_kind_each_token_is(backbone_home: object) -> None:
    backbone = Backbone.load(resolve("smollm2-135m"))
    extractor = Extractor(backbone, max_length=12)
    text = 'Hello, the unbelievable Zanzibar aromatherapy! He said: "no."'
    (found,) = extractor.extract(["key"], extractor.encode([text]))
    tokens = [backbone.tokenizer.id_to_token(int(number)) for number in found.token_ids]
    told = dict(zip(tokens, (TOKEN_KINDS[kind] for kind in found.kinds), strict=True))
    assert told["Hello"] == "part of a word"  # no space before it: a text's first word
    assert (told[","], told["!"], told["Ġthe"]) == ("comma", "end of sentence", "frequent word")
    assert (told["ĠZ"], told["Ġaromatherapy"]) == ("capitalised word", "rare word")
    assert np.array_equal(found.prefix(5).kinds, found.kinds[:5])
    assert len(token_kinds(load_tokenizer(resolve("smollm2-135m").path))) == backbone.network.vocab_size
