"""Cards as files: what makes one, where they are looked for, how they are found."""

import tomllib
from pathlib import Path

import pytest

import pipelines
from features.errors import InputError, UsageError
from pipelines.card_checks import card_of_file
from pipelines.conversion import convert
from pipelines.data_cards import BLANK, PACKAGED_CARDS, card_folders, card_paths, find_card, load_card, write_card
from tests.pipelines import layout_files as made

FRONT = """name: mine
title: Mine
license: CC0-1.0
source: a drawer
citation: none
language: en
layout: table
files: [mine.csv]
columns: {body: the text}
fields: {text: body}
label_mapping: {person: human, "*": machine}
splits: {all: 3}
rows: 3
human: 1
machine: 2
"""


def write(folder: Path, front: str = FRONT, prose: str = "# Mine\n", name: str = "mine") -> Path:
    return made.write(folder / f"{name}.md", f"---\n{front}---\n\n{prose}")


def test_the_cards_are_installed_with_the_packages():
    settings = tomllib.loads((PACKAGED_CARDS.parent / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
        "setuptools"
    ]
    assert {"data_cards", "pipelines.layouts"} <= set(settings["packages"])
    assert settings["package-data"]["data_cards"] == ["*.md"]
    assert PACKAGED_CARDS.parent == Path(pipelines.__file__).resolve().parents[1]  # where an installation has them too


def test_a_card_is_read_with_its_labels_as_0_and_1(tmp_path: Path):
    card = load_card(write(tmp_path))
    assert (card.name, card.layout, card.files, card.prose) == ("mine", "table", ("mine.csv",), "# Mine")
    assert [card.label_of(raw) for raw in ("person", " person ", "gpt-4", 3, "", None)] == [0, 0, 1, 1, None, None]
    assert card.describes_a_file
    assert card.blanks == []


def test_labels_that_a_card_does_not_name_are_unknown_without_a_star(tmp_path: Path):
    card = load_card(write(tmp_path, FRONT.replace('{person: human, "*": machine}', "{0: human, 1: machine}")))
    assert [card.label_of(raw) for raw in (0, "1", 2, True)] == [0, 1, None, None]


def test_everything_that_is_wrong_with_a_card_is_said_at_once(tmp_path: Path):
    front = FRONT.replace("license:", "licence:").replace("human: 1", "human: 7").replace('"*": machine', "x: robot")
    with pytest.raises(InputError) as error:
        load_card(write(tmp_path, front))
    for part in (
        "it lacks license",
        "unknown field 'licence', did you mean 'license'?",
        "label_mapping says 'x' is 'robot', expected human or machine",
        "human and machine add up to 9, rows is 3",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("no front matter", "is not a data card: expected YAML between two lines '---'"),
        ("---\na: [\n---\n", "is not YAML"),
        ("---\n- a\n---\n", "is list, expected 'name: value' lines"),
        (f"---\n{FRONT.replace('name: mine', 'name: yours')}---\n", r"name is 'yours', but the file is mine\.md"),
        (f"---\n{FRONT.replace('name: mine', 'name: a/b')}---\n", "name is 'a/b', expected letters"),
        (f"---\n{FRONT.replace('rows: 3', 'rows: three')}---\n", "rows is 'three', expected a whole number"),
        (f"---\n{FRONT.replace('{all: 3}', '{all: 4}')}---\n", "splits add up to 4, rows is 3"),
        (f"---\n{FRONT.replace('{all: 3}', 'all')}---\n", "splits is 'all', expected 'key: value' lines"),
        (f"---\n{FRONT}files: 3\nsha256: 5\n---\n", "files is 3, expected a name or a list of names; sha256 is 5, exp"),
        (f"---\n{FRONT.replace('machine}', '[machine]}')}---\n", r"is \['machine'\], expected human or machine"),
    ],
)
def test_what_is_no_card_is_an_error(tmp_path: Path, content: str, message: str):
    with pytest.raises(InputError, match=message):
        load_card(made.write(tmp_path / "mine.md", content))


def test_a_card_that_is_not_utf8_or_not_there_is_an_error(tmp_path: Path):
    (tmp_path / "mine.md").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"cannot read the data card .*mine\.md"):
        load_card(tmp_path / "mine.md")
    with pytest.raises(InputError, match=r"cannot read the data card .*other\.md"):
        load_card(tmp_path / "other.md")


def test_yaml_that_would_make_objects_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="is not YAML: could not determine a constructor"):
        load_card(write(tmp_path, FRONT + "verified: !!python/object/apply:os.getcwd []\n"))


def test_own_cards_come_before_those_that_ship(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "data_cards")
    write(tmp_path / "data_cards", FRONT.replace("name: mine", "name: mage"), name="mage")
    monkeypatch.chdir(tmp_path)
    assert find_card("mage", card_folders(None)).title == "Mine"
    assert find_card("raid", card_folders(None)).path == PACKAGED_CARDS / "raid.md"
    assert "mine" in card_paths(card_folders(None))
    assert "mine" not in card_paths(card_folders(str(PACKAGED_CARDS)))


def test_a_card_that_is_not_there_is_wrong_usage_with_the_nearest_name(tmp_path: Path):
    with pytest.raises(UsageError, match=r"no data card 'mags'; did you mean 'mage'\? there are detectrl,"):
        find_card("mags", card_folders(None))
    with pytest.raises(UsageError, match=r"--cards .*nowhere is not a folder"):
        card_folders(str(tmp_path / "nowhere"))


def test_a_new_card_never_overwrites(tmp_path: Path):
    write_card(tmp_path / "new" / "mine.md", {"name": "mine"}, "prose")
    with pytest.raises(UsageError, match=r"mine\.md exists already"):
        write_card(tmp_path / "new" / "mine.md", {"name": "mine"}, "prose")


def test_blanks_are_what_a_person_has_to_fill_in(tmp_path: Path):
    front = FRONT.replace("title: Mine", f"title: '{BLANK} one line'")
    assert load_card(write(tmp_path, front, f"{BLANK} who wrote it\n")).blanks == ["title", "prose"]


def test_the_card_of_a_file_is_known_by_what_it_says_or_by_its_hash(tmp_path: Path):
    folders = [PACKAGED_CARDS]
    source = made.write_mage(tmp_path / "mage")
    convert(find_card("mage", folders), [str(source)], tmp_path / "out.parquet")
    found = card_of_file(tmp_path / "out.parquet", folders)
    assert found is not None
    assert found.name == "mage"
    assert card_of_file(source / "train.csv", folders) is None
