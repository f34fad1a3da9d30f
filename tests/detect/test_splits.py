import itertools

import pytest

from detect.splits import opening, split_groups
from features.documents import Document
from features.errors import UsageError

HALVES = {"train": 0.5, "test": 0.5}


def make_document(text: str, group: str | None = None) -> Document:
    return Document(id=text[:20], text=text, group=group)


def make_documents(count: int) -> list[Document]:
    return [make_document(f"{index} begins this text") for index in range(count)]


def naive_sources(documents):
    """Merge sets of documents that share anything until nothing changes."""
    sources = [{index} for index in range(len(documents))]

    def related(a, b):
        same_group = documents[a].group is not None and documents[a].group == documents[b].group
        text_a, text_b = documents[a].text, documents[b].text
        begin_a, begin_b = (" ".join(text.casefold().split())[:100] for text in (text_a, text_b))
        return same_group or text_a == text_b or begin_a == begin_b

    merged = True
    while merged:
        merged = False
        for first, second in itertools.combinations(sources, 2):
            if any(related(a, b) for a in first for b in second):
                sources.remove(second)
                first |= second
                merged = True
                break
    return sources


def test_no_source_crosses_parts_whatever_joins_it():
    openings = [f"{number} {'shared opening ' * 10}" for number in range(40)]
    documents = [
        make_document(f"{openings[index % 40]} ending {index}", group=f"g{index // 3}" if index % 2 else None)
        for index in range(60)
    ] + make_documents(10)
    sources = naive_sources(documents)
    assert len(sources) == 40
    for seed in range(20):
        parts = split_groups(documents, HALVES, seed)
        assert all(len({parts[index] for index in source}) == 1 for source in sources)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (make_document("one text", group="pair"), make_document("quite another", group="pair")),
        (make_document("one text", group="a"), make_document("one text", group="b")),
        (make_document("x" * 100 + " one ending"), make_document("x" * 100 + " another ending")),
        (make_document("Straße  und\n\nSTEG"), make_document("STRASSE und steg")),
    ],
    ids=["group", "text", "opening", "case and white space"],
)
def test_what_is_shared_stays_on_one_side_at_every_seed(first, second):
    assert all(len(set(split_groups([first, second], HALVES, seed))) == 1 for seed in range(30))


def test_a_chain_of_sharing_is_one_source():
    chain = [
        make_document("first", group="a"),
        make_document("y" * 100 + "1", group="a"),
        make_document("y" * 100 + "2", group="b"),
        make_document("last", group="b"),
    ]
    assert all(len(set(split_groups(chain, HALVES, seed))) == 1 for seed in range(30))


def test_openings_that_differ_at_the_hundredth_character_are_two_sources():
    pair = [make_document("z" * 99 + "a"), make_document("z" * 99 + "b")]
    assert any(len(set(split_groups(pair, HALVES, seed))) == 2 for seed in range(30))


def test_documents_without_a_group_are_not_one_group():
    assert set(split_groups(make_documents(30), HALVES, 0)) == {"train", "test"}


def test_opening_is_the_first_hundred_characters_of_the_collapsed_text():
    text = "  A\tB \n" + "c " * 300
    assert opening(text) == ("a b " + "c " * 300)[:100]
    assert opening("W" * 300) == "w" * 100
    assert opening("Short") == "short"


def test_parts_have_their_shares_up_to_chance():
    parts = split_groups(make_documents(2000), {"train": 0.7, "validation": 0.1, "test": 0.2}, 1)
    shares = {name: parts.count(name) / 2000 for name in set(parts)}
    # Four standard deviations of a share of 2000 are at most 4 * sqrt(0.7 * 0.3 / 2000) = 0.041.
    assert shares == pytest.approx({"train": 0.7, "validation": 0.1, "test": 0.2}, abs=0.041)


def test_same_seed_same_split_in_any_order_and_another_seed_another():
    documents = [make_document(f"{index} starts a text", group=f"g{index // 3}") for index in range(60)]
    parts = split_groups(documents, HALVES, 2)
    assert split_groups(documents[::-1], HALVES, 2)[::-1] == parts
    assert split_groups(documents, HALVES, 3) != parts


def test_added_documents_move_no_source_that_they_do_not_join():
    documents = make_documents(100)
    assert split_groups(documents, HALVES, 4)[:60] == split_groups(documents[:60], HALVES, 4)


def test_a_larger_part_only_gains_sources():
    documents = make_documents(100)
    small = split_groups(documents, {"train": 0.5, "test": 0.5}, 5)
    large = split_groups(documents, {"train": 0.7, "test": 0.3}, 5)
    assert all(after == "train" for before, after in zip(small, large, strict=True) if before == "train")


def test_one_part_takes_everything_and_nothing_gives_nothing():
    assert split_groups(make_documents(3), {"all": 1.0}, 0) == ["all"] * 3
    assert split_groups([], HALVES, 0) == []


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ({"train": 0.8, "test": 0.1}, r"add up to 1, got .*'test': 0.1.* .sum 0.9."),
        ({"train": 1.5, "test": -0.5}, r"above 0 .*'test': -0.5"),
        ({"train": 1.0, "test": 0.0}, r"above 0 .*'test': 0.0"),
        ({}, r"got \{\} .sum 0."),
    ],
)
def test_fractions_that_do_not_divide_a_corpus_are_refused(fractions, message):
    with pytest.raises(UsageError, match=message):
        split_groups([], fractions, 0)
