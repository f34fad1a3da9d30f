from collections import Counter
from pathlib import Path

import pytest

from features.documents import Document, text_key
from features.errors import InputError
from pipelines.attack_subjects import CALIBRATION, JUDGED, Subjects, read_clean, stratified
from pipelines.corpora import CorpusOptions
from tests.e2e.runs import labelled_rows, write_jsonl

LABELLED = CorpusOptions(labelled=True)


def documents(count: int, *, start: int = 0, pairs: bool = False) -> dict[str, tuple[Document, str]]:
    """Human and machine texts in turn, of two domains."""
    found = {}
    for number in range(start, start + count):
        text = f"{number} begins this text"
        group = f"d/s/{number // 2}" if pairs else None
        domain = "even" if number // 2 % 2 else "odd"
        found[text_key(text)] = (Document(str(number), text, number % 2, domain, "g", None, group), "corpus")
    return found


def chosen(judged, calibration=None, *, limit=None, calibration_texts=1000, seed=0) -> Subjects:
    options = {"limit": limit, "calibration_texts": calibration_texts, "seed": seed}
    return Subjects.chosen(judged, calibration or {}, **options)


def test_thresholds_come_from_human_texts_of_sources_that_are_not_judged():
    subjects = chosen(documents(200, pairs=True))
    fixing, judged = subjects.subset(subjects.of(CALIBRATION)), subjects.subset(subjects.of(JUDGED))
    assert {document.label for document in fixing.documents} == {0}
    assert {document.label for document in judged.documents} == {0, 1}
    assert not {document.group for document in fixing.documents} & {document.group for document in judged.documents}
    assert 30 < len(fixing.documents) < 70  # half of 100 human texts


def test_calibration_texts_that_share_a_source_with_the_judged_are_left_out():
    judged, other = documents(40, pairs=True), documents(80, pairs=True)
    subjects = chosen(judged, {**other})
    assert len(subjects.of(JUDGED)) == 40
    assert len(subjects.of(CALIBRATION)) == 20  # the human ones of 40 to 79
    assert {document.id for document in subjects.documents} <= set(other)


def test_a_limit_is_of_each_class_and_keeps_the_shares_of_the_domains():
    subjects = chosen(documents(400), limit=20)
    judged = subjects.subset(subjects.of(JUDGED)).documents
    counts = Counter((document.label, document.domain) for document in judged)
    assert sum(counts.values()) == 40
    assert all(8 <= count <= 12 for count in counts.values())


def test_the_same_seed_chooses_the_same_and_another_others():
    found = [{document.id for document in chosen(documents(400), limit=20, seed=seed).documents} for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("limit", [1, 7, 50, None])
def test_stratified_takes_as_many_as_there_may_be_and_each_once(limit):
    own = [document for document, _ in documents(40).values()]
    found = stratified(own, [""] * 40, range(100, 140), limit, 3)
    assert len(found) == len(set(found)) == min(limit or 40, 40)
    assert set(found) <= set(range(100, 140))


def test_a_class_that_is_missing_is_refused():
    human = {key: pair for key, pair in documents(40).items() if pair[0].label == 0}
    with pytest.raises(InputError, match=r"human and 0 machine texts.*--calibrate-on"):
        chosen(human).check()


def test_texts_that_were_attacked_or_repeat_are_left_out_and_counted(tmp_path: Path):
    rows = [row | {"attack": "none"} for row in labelled_rows(6)]
    rows[1]["attack"] = "paraphrase"
    rows.append(rows[0] | {"id": "again"})
    rows.append(rows[2] | {"id": "other label", "label": 1})
    rows.append({"id": "none", "text": " ", "label": 0, "attack": "none"})
    found, left_out = read_clean([str(write_jsonl(tmp_path / "x.jsonl", rows))], LABELLED)
    assert len(found) == 10
    assert left_out == {"attacked already": 1, "repeated": 2, "with both labels": 1, "empty": 1}
    assert {corpus for _, corpus in found.values()} == {"x"}


def test_a_file_without_a_clean_text_is_refused(tmp_path: Path):
    rows = [row | {"attack": "word"} for row in labelled_rows(3) if row["label"]]
    with pytest.raises(InputError, match=r"no text of .*x.jsonl can be used: {'attacked already': 3}"):
        read_clean([str(write_jsonl(tmp_path / "x.jsonl", rows))], LABELLED)
