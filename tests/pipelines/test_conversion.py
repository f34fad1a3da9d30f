"""Corpora in the one form: what is kept, what is left out, what the file says of itself."""

import csv
import hashlib
import json
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from features.documents import Status
from features.errors import InputError, UsageError
from pipelines.conversion import CORPUS_KEY, SCHEMA, convert, corpus_facts
from pipelines.corpora import Corpus, CorpusOptions
from pipelines.data_cards import PACKAGED_CARDS, DataCard, find_card
from pipelines.repeats import SeenTexts
from tests.pipelines import layout_files as made


def card(name: str) -> DataCard:
    return find_card(name, [PACKAGED_CARDS])


def test_a_converted_file_has_the_columns_and_types_of_the_one_form(tmp_path: Path):
    convert(card("mage"), [str(made.write_mage(tmp_path / "mage"))], tmp_path / "out.parquet")
    assert pq.read_schema(tmp_path / "out.parquet").remove_metadata() == SCHEMA
    table = pl.read_parquet(tmp_path / "out.parquet")
    assert set(table["dataset"]) == {"mage"}
    assert table["id"].str.contains(r"^[0-9a-f]{16}$").all()
    assert table["id"].n_unique() == table.height


def test_a_repeat_under_the_same_label_is_left_out_and_counted_by_split(tmp_path: Path):
    result = convert(card("mage"), [str(made.write_mage(tmp_path / "mage"))], tmp_path / "out.parquet")
    assert dict(result.repeated) == {"test_ood_set_gpt_para": 1}  # the human text of the other GPT-4 set
    assert (result.kept[0], result.kept[1], result.rows) == (4, 6, 11)
    assert pl.read_parquet(tmp_path / "out.parquet")["text"].n_unique() == 10


def test_a_text_under_both_labels_is_kept_twice_and_counted(tmp_path: Path):
    rows = [("The same.", 0, "cmv_machine_topical_x"), ("The  same.", 1, "cmv_human"), ("Another.", 1, "cmv_human")]
    source = made.write_csv(tmp_path / "train.csv", ("text", "label", "src"), rows)
    result = convert(card("mage"), [str(source)], tmp_path / "out.parquet")
    assert (result.contradictory, result.kept.total()) == (1, 3)
    assert pl.read_parquet(tmp_path / "out.parquet")["id"].n_unique() == 3


def test_rows_that_are_no_labelled_text_are_counted_shown_and_listed(tmp_path: Path):
    rows = [("Good.", 1, "cmv_human"), ("", 1, "cmv_human"), ("No label.", 7, "cmv_human"), ("", 0, "cmv_human")]
    source = made.write_csv(tmp_path / "train.csv", ("text", "label", "src"), rows)
    result = convert(card("mage"), [str(source)], tmp_path / "out.parquet", rejected=tmp_path / "rejected.csv")
    assert dict(result.rejected) == {"empty": 2, "no_label": 1}
    assert result.rows == 4
    with (tmp_path / "rejected.csv").open(encoding="utf-8", newline="") as file:
        listed = list(csv.reader(file))
    assert listed[0] == ["place", "reason", "detail"]
    assert [row[0] for row in listed[1:]] == ["train.csv:2", "train.csv:3", "train.csv:4"]
    assert [row.place for row in result.examples] == ["train.csv:2", "train.csv:3", "train.csv:4"]


def test_a_converted_file_says_where_it_comes_from(tmp_path: Path):
    source = made.write_raid(tmp_path / "raid")
    convert(card("raid"), [str(source)], tmp_path / "out.parquet")
    facts = corpus_facts(tmp_path / "out.parquet")
    assert facts is not None
    assert (facts["card"], facts["layout"], facts["form"]) == ("raid", "raid", 1)
    assert facts["card_sha256"] == hashlib.sha256((PACKAGED_CARDS / "raid.md").read_bytes()).hexdigest()
    hashes = {
        name: hashlib.sha256((source / name).read_bytes()).hexdigest() for name in ("extra_none.csv", "train.csv")
    }
    assert facts["sources"] == hashes
    assert facts["kept"] == {"human": 3, "machine": 3}
    assert json.loads(pq.read_metadata(tmp_path / "out.parquet").metadata[CORPUS_KEY.encode()]) == facts


def test_any_other_file_says_nothing_of_itself(tmp_path: Path):
    pl.DataFrame({"text": ["t"]}).write_parquet(tmp_path / "a.parquet")
    assert corpus_facts(tmp_path / "a.parquet") is None
    assert corpus_facts(made.write(tmp_path / "b.csv", "text\nt\n")) is None


def test_equal_sources_give_equal_files(tmp_path: Path):
    source = str(made.write_ghostbuster(tmp_path / "data"))
    for name in ("a.parquet", "b.parquet"):
        convert(card("ghostbuster"), [source], tmp_path / name)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_a_conversion_that_fails_leaves_the_old_output_and_nothing_else(tmp_path: Path):
    output = made.write(tmp_path / "out" / "out.parquet", "from before")
    good = [made.m4_record("Human.", "Machine.", "m", 1)] * 3
    made.write_jsonl(tmp_path / "m4" / "a_m.jsonl", good)
    made.write(tmp_path / "m4" / "b_m.jsonl", "no json at all\n")
    with pytest.raises(InputError, match=r"b_m\.jsonl is not JSONL"):
        convert(card("m4"), [str(tmp_path / "m4")], output)
    assert output.read_text() == "from before"
    assert [path.name for path in output.parent.iterdir()] == ["out.parquet"]


def test_sources_without_a_single_text_give_no_file(tmp_path: Path):
    source = made.write_csv(
        tmp_path / "train.csv", ("text", "label", "src"), [("", 1, "cmv_human"), ("x", 9, "cmv_human")]
    )
    with pytest.raises(InputError, match=r"none of 2 rows is a labelled text \(1 empty, 1 no_label\)"):
        convert(card("mage"), [str(source)], tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


def test_outputs_that_cannot_be_are_wrong_usage(tmp_path: Path):
    source = str(made.write_mage(tmp_path / "mage"))
    with pytest.raises(UsageError, match=r"cannot write .*out\.csv: the one form is Parquet"):
        convert(card("mage"), [source], tmp_path / "out.csv")
    table = pl.DataFrame({"text": ["t"], "label": [1], "src": ["cmv_human"]})
    table.write_parquet(tmp_path / "train.parquet")
    with pytest.raises(UsageError, match=r"train\.parquet is one of the sources"):
        convert(card("mage"), [str(tmp_path / "train.parquet")], tmp_path / "train.parquet")
    out, before = tmp_path / "out.parquet", (tmp_path / "train.parquet").read_bytes()
    with pytest.raises(UsageError, match=r"train\.parquet is one of the sources"):
        convert(card("mage"), [str(tmp_path / "train.parquet")], out, rejected=tmp_path / "train.parquet")
    assert (tmp_path / "train.parquet").read_bytes() == before
    with pytest.raises(UsageError, match=r"the texts and the rejected rows cannot both be written to .*out\.parquet"):
        convert(card("mage"), [source], out, rejected=out)


def test_texts_that_utf8_cannot_write_never_reach_the_file(tmp_path: Path):
    made.write(tmp_path / "wp/gpt/1.txt", "A text with a name outside of UTF-8.")
    (tmp_path / "wp/gpt/2.txt").write_bytes(b"caf\xe9")
    made.write(tmp_path / "wp/gpt/3.txt", "zero \0 byte")
    result = convert(card("ghostbuster"), [str(tmp_path)], tmp_path / "out.parquet")
    assert dict(result.rejected) == {Status.INVALID_UTF8: 1, Status.NUL_CHARACTER: 1}


def test_training_reads_a_converted_corpus_with_its_labels_and_sources(tmp_path: Path):
    convert(card("m4"), [str(made.write_m4(tmp_path / "m4"))], tmp_path / "m4.parquet")
    with Corpus.open([str(tmp_path / "m4.parquet")], CorpusOptions(labelled=True)) as corpus:
        documents = [row.document for row in corpus.rows()]
    arxiv = [document for document in documents if document.domain == "arxiv"]
    assert [(document.label, document.generator) for document in arxiv] == [
        (0, "human"),
        (1, "gpt-3.5-turbo"),
        (1, "flan-t5"),
    ]
    assert len({document.group for document in arxiv}) == 1
    assert all(document.id and document.attack == "none" for document in documents)


def test_a_file_in_the_one_form_keeps_its_ids_when_it_is_converted_again(tmp_path: Path):
    convert(card("m4"), [str(made.write_m4(tmp_path / "m4"))], tmp_path / "outfox.parquet")
    convert(card("outfox"), [str(tmp_path / "outfox.parquet")], tmp_path / "again.parquet")
    first, again = (pl.read_parquet(tmp_path / name) for name in ("outfox.parquet", "again.parquet"))
    assert first.drop("dataset").equals(again.drop("dataset"))


def test_files_that_are_not_those_of_the_card_are_told(tmp_path: Path):
    convert(card("m4"), [str(made.write_m4(tmp_path / "m4"))], tmp_path / "m4.parquet")
    known = DataCard(**{**card("outfox").__dict__, "sha256": {"m4.parquet": "0" * 64}, "files": ("{stem}.parquet",)})
    assert convert(known, [str(tmp_path / "m4.parquet")], tmp_path / "out.parquet").changed == ["m4.parquet"]


def test_repeats_are_found_whatever_the_white_space_and_apart_by_label():
    with SeenTexts() as seen:
        assert seen.add("One text.", 0) == (False, False)
        assert seen.add(" One\n text.", 0) == (True, False)
        assert seen.add("One text.", 1) == (False, True)
        assert seen.add("One text.", 1) == (True, True)
        assert seen.add("one text.", 0) == (False, False)
