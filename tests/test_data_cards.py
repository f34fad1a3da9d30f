"""The cards in data_cards/ say what the files say."""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

CARDS = sorted((Path(__file__).parents[1] / "data_cards").glob("*.md"))
FIELDS = {
    *("name", "title", "license", "source", "citation", "language", "rows", "human", "machine", "domains"),
    *("generators", "attacks", "splits", "columns", "label_mapping", "sha256"),
}

each_card = pytest.mark.parametrize("path", CARDS, ids=lambda path: path.stem)


def read_card(path: Path) -> tuple[dict[str, Any], str]:
    """Front matter and prose."""
    _, front, prose = path.read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(front), prose


def test_there_is_a_card_for_each_training_corpus():
    assert {path.stem for path in CARDS} >= {"detectrl", "fastdetect_main", "outfox"}


@each_card
def test_a_card_has_every_field_and_prose(path: Path):
    card, prose = read_card(path)
    assert set(card) == FIELDS
    assert all(value not in (None, "", {}) for value in card.values())
    assert card["name"] == path.stem
    assert card["citation"].startswith("arXiv:")
    assert "**Used here**" in prose
    assert "## Caveats" in prose


@each_card
def test_the_counts_of_a_card_add_up_to_its_rows(path: Path):
    card, _ = read_card(path)
    assert card["human"] + card["machine"] == card["rows"]
    assert card["generators"]["human"] == card["human"]
    assert card["label_mapping"] == {0: "human", 1: "machine"}
    for field in ("domains", "generators", "attacks", "splits"):
        assert sum(card[field].values()) == card["rows"], field


@each_card
def test_a_card_describes_the_file_as_it_is(path: Path, shared_data: Path):
    card, _ = read_card(path)
    file = shared_data / f"{card['name']}.parquet"
    if not file.is_file():
        pytest.skip(f"no {file.name} in {shared_data}")
    assert hashlib.sha256(file.read_bytes()).hexdigest() == card["sha256"]
    table = pl.read_parquet(file)
    assert table.height == card["rows"]
    assert table.columns == list(card["columns"])
    assert Counter(table["label"]) == {0: card["human"], 1: card["machine"]}
    for field, column in (
        ("domains", "domain"),
        ("generators", "generator"),
        ("attacks", "attack"),
        ("splits", "split"),
    ):
        assert Counter(table[column]) == card[field], field


@each_card
def test_a_card_carries_no_text_of_its_corpus(path: Path, shared_data: Path):
    card, _ = read_card(path)
    file = shared_data / f"{card['name']}.parquet"
    if not file.is_file():
        pytest.skip(f"no {file.name} in {shared_data}")
    content = " ".join(path.read_text(encoding="utf-8").split())
    words = content.split(" ")
    passages = {" ".join(words[i : i + 8]) for i in range(len(words) - 7)}
    texts = [" ".join(text.split()) for text in pl.read_parquet(file)["text"]]
    joined = "\n".join(texts)
    assert [passage for passage in passages if passage in joined] == []
