from pathlib import Path

import polars as pl
import pytest

from detect.adversarial.generation import Continuation
from detect.adversarial.prompts import Prompt
from features.documents import Document
from features.errors import InputError
from pipelines.corpora import Corpus, CorpusOptions
from pipelines.redteam_texts import TextSet, as_documents, human_texts, read_texts, write_texts

GROUPS = ("corpus/cell/with/slashes/17", "corpus/split/18", None)
PROMPTS = [
    Prompt(
        Document(id=str(i), text="", label=0, domain="news", group=group), f"Prompt {i}", (1, i), f"human {i}", (3, i)
    )
    for i, group in enumerate(GROUPS)
]
KIND = TextSet("heldout-after", "tiny", "redteam-dpo")
TEXTS = [Continuation((5, i), f"written {i}", f"Prompt {i} written {i}") for i in range(3)]


def test_texts_come_back_from_disk(tmp_path: Path):
    write_texts(tmp_path / "texts" / "a.parquet", KIND, PROMPTS, TEXTS)
    assert read_texts(tmp_path / "texts" / "a.parquet", PROMPTS) == TEXTS
    assert [path.name for path in (tmp_path / "texts").iterdir()] == ["a.parquet"]


def test_a_corpus_reads_them_with_label_writer_attack_and_the_group_of_their_source(tmp_path: Path):
    write_texts(tmp_path / "a.parquet", KIND, PROMPTS, TEXTS)
    with Corpus.open([str(tmp_path / "a.parquet")], CorpusOptions(labelled=True)) as corpus:
        found = [row.document for row in corpus.rows()]
    assert found == as_documents(KIND, PROMPTS, TEXTS)
    assert [(document.label, document.generator, document.attack) for document in found] == [
        (1, "tiny", "redteam-dpo")
    ] * 3
    assert [document.group for document in found] == list(GROUPS)


def test_human_continuations_are_human_texts():
    kind = TextSet("heldout-human", "human")
    assert kind.label == 0
    assert human_texts(PROMPTS)[1] == Continuation((3, 1), "human 1", "Prompt 1 human 1")


def test_texts_on_other_prompts_are_refused(tmp_path: Path):
    path = tmp_path / "a.parquet"
    write_texts(path, KIND, PROMPTS, TEXTS)
    with pytest.raises(InputError, match="on other prompts"):
        read_texts(path, PROMPTS[:2])
    path.write_bytes(b"PAR1 no more")
    with pytest.raises(InputError, match=r"a\.parquet cannot be read"):
        read_texts(path, PROMPTS)


def test_the_file_opens_in_polars(tmp_path: Path):
    write_texts(tmp_path / "a.parquet", KIND, PROMPTS, TEXTS)
    frame = pl.read_parquet(tmp_path / "a.parquet")
    assert frame["id"].to_list() == ["heldout-after:0", "heldout-after:1", "heldout-after:2"]
    assert frame["token_ids"].to_list() == [[5, 0], [5, 1], [5, 2]]
