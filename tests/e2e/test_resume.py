"""Killed at any moment, `pawn score` and `pawn extract` go on where they were and end as if nothing had happened."""

import random
import subprocess
import time
from pathlib import Path

import polars as pl
import pytest

from pipelines.extraction import BLOCK_ROWS, BLOCK_TOKENS
from tests.e2e.conftest import Pawn
from tests.e2e.runs import Toy, human_text, read_results, start, write_jsonl

BLOCKS = 5


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short texts for several blocks, a few rows without a score among them."""
    rng = random.Random(11)
    rows = [{"id": str(i), "text": human_text(rng, words=rng.randint(6, 9))} for i in range(BLOCKS * BLOCK_ROWS - 100)]
    rows[7]["text"] = ""
    rows[3000]["text"] = "short"
    return write_jsonl(tmp_path_factory.mktemp("many") / "many.jsonl", rows)


def kill_at(process: "subprocess.Popen[bytes]", folder: Path, pattern: str, files: int) -> None:
    """SIGKILL at the moment when so many files are there, which must come before the process ends."""
    deadline = time.monotonic() + 120
    while len(list(folder.glob(pattern))) < files:
        assert process.poll() is None, process.communicate()[1].decode()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    process.communicate()
    assert process.returncode == -9


def test_a_score_killed_three_times_ends_like_an_undisturbed_one(
    tmp_path: Path, toy: Toy, pawn: Pawn, many: Path
) -> None:
    command = ("score", many, "--detector", toy.detector, "-o")
    out = tmp_path / "killed.parquet"
    parts = tmp_path / ".killed.parquet.parts"
    for wanted in (1, 2, 3):
        kill_at(start(tmp_path / "home", *command, out), parts, "part-*.parquet", wanted)
        assert not out.exists()
    kept = sum(pl.read_parquet(part).height for part in parts.glob("part-*.parquet"))
    finished = pawn(*command, out)
    assert finished.code == 3
    assert f"Continuing after {kept:,} of {BLOCKS * BLOCK_ROWS - 100:,} rows" in finished.err
    assert "2 without a score: 1 empty, 1 too_short" in finished.err
    assert not parts.exists()
    undisturbed = pawn(*command, tmp_path / "undisturbed.parquet")
    assert "Continuing" not in undisturbed.err
    rows = read_results(out)
    assert [row["id"] for row in rows] == [str(i) for i in range(BLOCKS * BLOCK_ROWS - 100)]
    assert rows == read_results(tmp_path / "undisturbed.parquet")  # scores bit for bit


def cached(cache: Path) -> pl.DataFrame:
    """All that a cache holds, read with plain Polars."""
    (folder,) = {shard.parent for shard in cache.glob("*/*.parquet")}
    return pl.read_parquet(folder / "*.parquet").sort("key")


def test_an_extraction_killed_twice_ends_like_an_undisturbed_one(
    tmp_path: Path, toy: Toy, pawn: Pawn, many: Path
) -> None:
    command = ("extract", many, "--backbone", toy.model, "--no-progress", "--cache")
    cache = tmp_path / "killed"
    for wanted in (1, 3):
        kill_at(start(tmp_path / "home", *command, cache), cache, "*/[!.]*.parquet", wanted)
    before = cached(cache)
    finished = pawn(*command, cache)
    assert finished.code == 3
    undisturbed = pawn(*command, tmp_path / "undisturbed")
    content = cached(cache)
    assert content.equals(cached(tmp_path / "undisturbed"))
    assert content["key"].n_unique() == content.height == BLOCKS * BLOCK_ROWS - 102
    assert content["n_tokens"].sum() > 3 * BLOCK_TOKENS
    assert f"{content.height - before.height:,} computed now" in finished.err
    assert f"{content.height:,} computed now" in undisturbed.err
