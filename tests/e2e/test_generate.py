"""`pawn generate` as a person runs it, with a random model of two layers that knows no chat."""

import random
from pathlib import Path

import polars as pl
import pytest

from detect.splits import split_groups
from pipelines.corpora import Corpus, CorpusOptions
from pipelines.fitting import SPLIT
from pipelines.generation import DRAWINGS, without_preamble
from tests.e2e.conftest import Pawn
from tests.e2e.runs import Toy, human_text, write_jsonl


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rng = random.Random(5)
    rows = [
        {
            "id": str(i),
            "text": human_text(rng, words=120 if i % 3 else 5),
            "label": "human" if i < 50 else "machine",
            "domain": ("news", "essay")[i % 2],
            "pair_id": str(i),
        }
        for i in range(60)
    ]
    return write_jsonl(tmp_path / "data.jsonl", rows)


def test_texts_are_of_the_domains_and_groups_of_what_they_were_written_after(
    data: Path, toy: Toy, tmp_path: Path, pawn: Pawn
) -> None:
    command = ("generate", "--data", data, "--model", toy.model, "--texts", 20, "--new-tokens", 250, "-o")
    result = pawn(*command, tmp_path / "made.parquet")
    assert result.code == 0, result.err
    made = pl.read_parquet(tmp_path / "made.parquet")
    assert f"{len(made)} texts written to" in result.err
    assert 0 < len(made) <= 20
    assert set(made["label"]) == {1}
    assert set(made["attack"]) == {"continue"}  # no chat template, no instructions
    assert set(made["domain"]) == {"news", "essay"}
    ways = {(drawing.temperature, drawing.top_p, drawing.top_k, drawing.repetition_penalty) for drawing in DRAWINGS}
    assert set(made.select("temperature", "top_p", "top_k", "repetition_penalty").rows()) <= ways
    with Corpus.open([str(data), str(tmp_path / "made.parquet")], CorpusOptions(labelled=True)) as corpus:
        documents = [row.document for row in corpus.rows()]
    parts = split_groups(documents, SPLIT, seed=0)
    of_group = {d.group: part for d, part in zip(documents[:60], parts[:60], strict=True)}
    assert [of_group[document.group] for document in documents[60:]] == parts[60:]
    assert pawn(*command, tmp_path / "again.parquet").code == 0
    assert pl.read_parquet(tmp_path / "again.parquet").equals(made)


def test_what_cannot_be_written_after_or_to_is_said(data: Path, toy: Toy, tmp_path: Path, pawn: Pawn) -> None:
    command = ("generate", "--model", toy.model, "--data")
    wrong = pawn(*command, data, "-o", tmp_path / "made.csv")
    assert (wrong.code, "expected an output that ends in .parquet" in wrong.err) == (2, True)
    own = tmp_path / "own.parquet"
    pl.DataFrame({"text": ["some words"], "label": [0]}).write_parquet(own)
    replaced = pawn(*command, own, "-o", own)
    assert (replaced.code, "own.parquet is one of the inputs and would be replaced" in replaced.err) == (2, True)
    assert len(pl.read_parquet(own)) == 1
    short = write_jsonl(tmp_path / "short.jsonl", [{"text": "a few words " * 4, "label": 0}])
    refused = pawn(*command, short, "-o", tmp_path / "made.parquet")
    assert (refused.code, "none of 1 human texts has 70 tokens" in refused.err) == (1, True)


def test_an_answer_loses_what_a_chat_model_says_before_it() -> None:
    text = "The river rose. It was: cold."
    for preamble in ("Here is a rewritten version of the text: ", "Sure, here you go: ", ""):
        assert without_preamble(f'{preamble}"{text}"') == text
    assert without_preamble("Here is the river. It rose: fast.") == "Here is the river. It rose: fast."
