import itertools
import re
import unicodedata

import numpy as np
import pytest

from detect import near_duplicates
from detect.disjoint_sets import DisjointSets
from detect.near_duplicates import NEIGHBOURS, SIMILARITY, join_near_duplicates, min_hashes
from detect.splits import sources
from features.documents import Document

WORDS = [f"word{number}" for number in range(3000)]


def words_of(rng: np.random.Generator, count: int) -> list[str]:
    return [str(word) for word in rng.choice(WORDS, size=count)]


def changed(rng: np.random.Generator, words: list[str], share: float) -> list[str]:
    """Each word replaced by another with a probability of `share`."""
    return [str(rng.choice(WORDS)) if rng.random() < share else word for word in words]


def naive_similarity(one: str, other: str) -> float:
    sets = []
    for text in (one, other):
        words = re.findall(r"\w+", text.casefold())
        runs = [tuple(words[start : start + 5]) for start in range(max(1, len(words) - 4))]
        sets.append(set(runs) if words else set())
    union = sets[0] | sets[1]
    return len(sets[0] & sets[1]) / len(union) if union else 0.0


def naive_components(texts: list[str], similarity: float) -> set[frozenset[int]]:
    """Merge sets of texts with a pair that is alike until nothing changes."""
    found = [{index} for index in range(len(texts))]
    for one, other in itertools.combinations(range(len(texts)), 2):
        if naive_similarity(texts[one], texts[other]) >= similarity:
            first, second = (next(members for members in found if index in members) for index in (one, other))
            if first is not second:
                found.remove(second)
                first |= second
    return {frozenset(members) for members in found}


def components(texts: list[str]) -> set[frozenset[int]]:
    sets = DisjointSets(len(texts))
    join_near_duplicates(texts, sets)
    found: dict[int, set[int]] = {}
    for index in range(len(texts)):
        found.setdefault(sets.root(index), set()).add(index)
    return {frozenset(members) for members in found.values()}


def joined(*texts: str) -> bool:
    return len(components(list(texts))) == 1


@pytest.fixture(scope="module")
def versions() -> list[str]:
    """Texts of 1 to 90 words, each with versions that differ from nothing to a word in three."""
    rng = np.random.default_rng(0)
    texts = []
    for _ in range(40):
        words = words_of(rng, int(rng.integers(1, 90)))
        texts += [" ".join(changed(rng, words, share)) for share in (0, 0.02, 0.05, 0.1, 0.3)]
    return texts


def test_joined_are_the_pairs_that_all_pairs_compared_would_join(versions):
    similar = [naive_similarity(one, other) for one, other in itertools.combinations(versions, 2)]
    assert sum(0.05 < value < SIMILARITY for value in similar) > 20  # near the limit from both sides
    assert sum(SIMILARITY < value < 0.6 for value in similar) > 20
    assert components(versions) == naive_components(versions, SIMILARITY)


def test_every_pair_above_the_limit_is_found_and_none_below_it():
    rng = np.random.default_rng(1)
    above = below = 0
    for share in np.linspace(0, 0.3, 60):
        words = words_of(rng, 80)
        pair = " ".join(words), " ".join(changed(rng, words, share))
        similar = naive_similarity(*pair) >= SIMILARITY
        above, below = above + similar, below + (not similar)
        assert joined(*pair) == similar
    assert above > 15
    assert below > 15


def test_the_order_of_the_texts_changes_nothing(versions):
    order = np.random.default_rng(2).permutation(len(versions))
    shuffled = components([versions[index] for index in order])
    assert {frozenset(int(order[index]) for index in members) for members in shuffled} == components(versions)


def test_the_order_changes_nothing_in_a_bucket_too_large_to_compare_all():
    rng = np.random.default_rng(3)
    words = words_of(rng, 40)
    texts = [" ".join([*words, *words_of(rng, 45)]) for _ in range(6 * NEIGHBOURS)]  # alike, but too little
    texts += [" ".join(changed(rng, texts[index].split(), 0.05)) for index in range(NEIGHBOURS)]
    order = rng.permutation(len(texts))
    shuffled = components([texts[index] for index in order])
    assert {frozenset(int(order[index]) for index in members) for members in shuffled} == components(texts)


def test_texts_without_a_word_are_like_no_other():
    assert components(["", " \n", "?!", "?!", "..."]) == {frozenset({index}) for index in range(5)}
    assert components([]) == set()


def test_short_texts_are_alike_when_their_words_are_equal():
    assert joined("Yes", "yes!")
    assert joined("one, two three", "One two  three.")
    assert not joined("yes", "no")
    assert not joined("one two three", "one two four")
    assert not joined("one two three four", "one two three four five")


def test_case_punctuation_and_white_space_make_no_difference():
    words = words_of(np.random.default_rng(4), 30)
    assert joined(" ".join(words), ".\n".join(word.upper() for word in words))


def test_a_text_is_like_itself_however_its_accents_are_written():
    text = "Tiếng Việt là ngôn ngữ của người Việt và là ngôn ngữ chính thức tại Việt Nam"
    assert joined(unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text))


def test_vowels_that_are_marks_belong_to_their_words():
    words = ["हिन्दी", "विश्व", "की", "एक", "प्रमुख", "भाषा", "है", "और", "भारत", "की", "एक", "राजभाषा", "है"]
    bare = ["".join(letter for letter in word if letter.isalpha()) for word in words]
    assert not joined(" ".join(words), " ".join(bare))


def test_a_character_is_a_word_where_words_have_no_spaces():
    rng = np.random.default_rng(5)
    text = "".join(chr(code) for code in rng.integers(0x4E00, 0x9FFF, size=60))
    assert joined(text, text[:30] + "的" + text[31:])
    assert not joined(text, text[::-1])


def test_texts_that_are_alike_by_others_are_joined_to_the_end_of_the_chain():
    words = words_of(np.random.default_rng(6), 200)
    chain = [" ".join(words[start : start + 60]) for start in range(0, 140, 15)]  # 41 of 71 shingles are shared: 0.58
    assert naive_similarity(chain[0], chain[-1]) == 0
    assert joined(*chain)


def test_many_equal_texts_are_one_and_few_are_compared(monkeypatch):
    compared = []
    monkeypatch.setattr(near_duplicates, "jaccard", lambda one, other: compared.append(1) or 1.0)
    text = " ".join(words_of(np.random.default_rng(7), 50))
    assert joined(*[text] * 5000)
    assert not compared


def test_comparisons_stay_in_proportion_to_texts_that_have_a_part_in_common(monkeypatch):
    rng = np.random.default_rng(8)
    words = words_of(rng, 30)
    compared = []

    def counted(one, other):
        compared.append(1)
        return 0.0

    monkeypatch.setattr(near_duplicates, "jaccard", counted)
    monkeypatch.setattr(near_duplicates, "BANDS", 5)
    count = 600  # 179,700 pairs
    join_near_duplicates([" ".join([*words, *words_of(rng, 10)]) for _ in range(count)], DisjointSets(count))
    assert 5000 < len(compared) <= 5 * NEIGHBOURS * count


def test_equal_hashes_estimate_the_similarity():
    values = np.random.default_rng(11).integers(2**64, size=500, dtype=np.uint64)
    table = min_hashes([values[:400], values[100:]])
    # 300 of 500: four standard deviations of 120 draws are 4 * sqrt(0.6 * 0.4 / 120) = 0.18.
    assert (table[:, 0] == table[:, 1]).mean() == pytest.approx(0.6, abs=0.18)


def test_hashes_are_the_same_on_every_machine():
    words = near_duplicates.WordHashes()
    assert words["word"] == 10776770685243991114  # blake2b("word"), 8 bytes, little-endian
    assert near_duplicates.shingles("one two", words).tolist() == [3516289720264178073]


def test_hashes_of_a_text_are_those_in_any_company(monkeypatch):
    rng = np.random.default_rng(9)
    words = near_duplicates.WordHashes()
    sets = [near_duplicates.shingles(" ".join(words_of(rng, int(count))), words) for count in rng.integers(1, 60, 50)]
    together = min_hashes(sets)
    monkeypatch.setattr(near_duplicates, "_CHUNK_SHINGLES", 64)
    assert np.array_equal(min_hashes(sets), together)
    assert np.array_equal(np.column_stack([min_hashes([found])[:, 0] for found in sets]), together)


def test_near_duplicates_are_one_source_with_what_shares_their_group():
    rng = np.random.default_rng(10)
    words = words_of(rng, 80)
    texts = ["A beginning of its own. " + " ".join(words[:70]), " ".join(words), " ".join(words_of(rng, 80))]
    documents = [Document(id="", text=text, group=group) for text, group in zip(texts, (None, "a", "a"), strict=True)]
    assert len(set(sources(documents))) == 1
    assert len(set(sources(documents[::2]))) == 2
