import shutil
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest

import detect.adversarial
from detect.adversarial.attack import AttackedText
from detect.adversarial.catalog import BATCH, DETECTOR, ENTRIES, attack_entry
from features.documents import Document
from features.errors import UsageError
from pipelines import attacked_texts
from pipelines.attacked_texts import (
    ATTACKED_SCHEMA,
    CHUNK,
    CODE,
    Attacker,
    TextSet,
    attacked_frame,
    attacks_id,
    parsed_strengths,
    strengths_of,
    text_sets,
)
from pipelines.corpora import Corpus, CorpusOptions

DOCUMENTS = [
    Document("a", "The colour of the sea.", 0, "d", "human", None, "set/part/1/x"),
    Document("b", "The color of the sky.", 1, "d", "g", None, None),
]


def test_strengths_are_multiples_or_numbers():
    assert parsed_strengths("x0.5, x1,0.3") == [(True, 0.5), (True, 1.0), (False, 0.3)]


@pytest.mark.parametrize("given", ["", "x", "0", "-1", "strong", "x1,,x2", "nan", "inf"])
def test_what_is_no_strength_is_refused(given):
    with pytest.raises(UsageError, match=r"expected strengths such as x0.5,x1,x2 .*, got "):
        parsed_strengths(given)


def test_multiples_end_at_the_largest_strength_and_come_once():
    entry = attack_entry("homoglyph")  # usually 1, at most 1
    assert strengths_of(entry, parsed_strengths("x2,x1,x0.5")) == [0.5, 1.0]
    assert strengths_of(attack_entry("upper_lower"), parsed_strengths("x2,0.3")) == [0.1, 0.3]


def test_a_number_that_an_attack_cannot_have_is_refused():
    with pytest.raises(UsageError, match=r"attack homoglyph has a strength of at most 1 .*, got 1.5"):
        strengths_of(attack_entry("homoglyph"), parsed_strengths("1.5"))


def test_an_attack_that_queries_has_a_set_for_each_detector():
    (querying,) = (entry.name for entry in ENTRIES if entry.needs == DETECTOR)
    found = text_sets(["homoglyph", querying, "homoglyph"], "x1", ["p", "q"])
    assert [(one.attack, one.target) for one in found] == [("homoglyph", None), (querying, "p"), (querying, "q")]
    assert found[1].shown == f"{querying} {attack_entry(querying).strength:g} against p"


def test_attacked_texts_are_in_the_one_form_and_say_what_was_done():
    after = [AttackedText("The colour of the sea."), AttackedText("The colour of the sky.", queries=3)]
    frame = attacked_frame(DOCUMENTS, after, TextSet("spell", 0.5))
    assert dict(frame.schema) == ATTACKED_SCHEMA
    assert frame["edit_distance"].to_list() == [0.0, pytest.approx(1 / 22)]
    assert frame["queries"].to_list() == [0, 3]
    assert frame.select("generator", "attack", "label", "strength").rows() == [
        ("human", "spell", 0, 0.5),
        ("g", "spell", 1, 0.5),
    ]


def test_an_attacked_text_is_read_as_of_the_source_that_it_was_made_of(tmp_path: Path):
    after = [AttackedText(document.text) for document in DOCUMENTS]
    path = tmp_path / "attacked.parquet"
    attacked_frame(DOCUMENTS, after, TextSet("spell", 0.5)).write_parquet(path)
    with Corpus.open([str(path)], CorpusOptions(labelled=True)) as corpus:
        groups = [row.document.group for row in corpus.rows()]
    assert groups == ["set/part/1/x", "attacked/attacked/b"]


class Counting:
    """An attack that counts the texts that it is given."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def apply(self, documents: Sequence[Document], strength: float, seed: int) -> list[AttackedText]:
        self.calls.append(len(documents))
        if len(self.calls) == 3:
            raise KeyboardInterrupt
        return [AttackedText(f"{document.text} {seed}") for document in documents]


@pytest.fixture
def attack(monkeypatch: pytest.MonkeyPatch) -> Counting:
    found = Counting()
    monkeypatch.setattr(attacked_texts, "attack_named", lambda name, means: found)
    return found


def many(count: int) -> list[Document]:
    return [Document(str(number), f"Text {number}.", number % 2) for number in range(count)]


def attacker(folder: Path, seed: int = 0) -> Attacker:
    return Attacker(folder, lambda: pytest.fail("no language model is needed"), "model", seed)


def test_a_slow_attack_that_was_stopped_goes_on_and_leaves_one_file(tmp_path: Path, attack: Counting):
    slow = TextSet("misspelling", 0.2)
    documents = many(3 * CHUNK + 1)
    with pytest.raises(KeyboardInterrupt):
        attacker(tmp_path).attacked(documents, slow)
    frame = attacker(tmp_path).attacked(documents, slow)
    assert attack.calls == [CHUNK, CHUNK, CHUNK, CHUNK, 1]  # the third was lost
    assert frame["id"].to_list() == [document.id for document in documents]
    assert len([*tmp_path.iterdir()]) == 1
    assert attacker(tmp_path).attacked(documents, slow).equals(frame)
    assert len(attack.calls) == 5


def test_an_attack_that_mixes_texts_is_given_all_of_them_at_once(tmp_path: Path, attack: Counting):
    (mixing,) = (entry.name for entry in ENTRIES if entry.needs == BATCH)
    attacker(tmp_path).attacked(many(2 * CHUNK), TextSet(mixing, 0.25))
    assert attack.calls == [2 * CHUNK]


def test_another_seed_strength_or_text_is_another_file(tmp_path: Path, attack: Counting):
    attacker(tmp_path).attacked(many(4), TextSet("homoglyph", 1.0))
    assert attacker(tmp_path, seed=1).attacked(many(4), TextSet("homoglyph", 1.0))["text"][0] == "Text 0. 1"
    assert len([*tmp_path.iterdir()]) == 2


def test_kept_texts_are_read_and_not_made_again(tmp_path: Path, attack: Counting):
    made = attacker(tmp_path).attacked(many(4), TextSet("homoglyph", 1.0))
    (path,) = tmp_path.iterdir()
    made.with_columns(text=pl.lit("kept")).write_parquet(path)
    assert set(attacker(tmp_path).attacked(many(4), TextSet("homoglyph", 1.0))["text"]) == {"kept"}
    assert attack.calls == [4]


def test_texts_that_other_code_made_are_made_again(
    tmp_path: Path, attack: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    attacker(tmp_path).attacked(many(4), TextSet("homoglyph", 1.0))
    monkeypatch.setattr(attacked_texts, "CODE", "of another version")
    attacker(tmp_path).attacked(many(4), TextSet("homoglyph", 1.0))
    assert attack.calls == [4, 4]


def test_the_hash_of_the_attacks_follows_code_and_word_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(shutil.copytree(Path(detect.adversarial.__file__).parent, tmp_path / "adversarial"))
    monkeypatch.setattr(detect.adversarial, "__file__", str(folder / "__init__.py"))

    def changed(path: Path) -> str:
        path.write_bytes(path.read_bytes() + b" ")
        return attacks_id()

    before = attacks_id()
    assert before == CODE
    lists = next(path for path in (folder / "words").iterdir() if path.is_file())
    assert len({before, changed(lists), changed(folder / "characters.py")}) == 3
    now = attacks_id()
    (folder / "__pycache__").mkdir(exist_ok=True)
    (folder / "__pycache__" / "characters.cpython-311.pyc.139").write_bytes(b"compiled")
    assert attacks_id() == now
