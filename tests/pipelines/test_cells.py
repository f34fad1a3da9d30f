from pathlib import Path

import polars as pl
import pytest

from features.errors import PawnError
from pipelines.cells import cell_name, digest_of, publish_frame


def test_a_cell_is_named_by_words_seed_and_all_that_decides_it():
    name = cell_name("homoglyph 0.5 against runs/mine", 3, {"a": 1})
    assert name == f"homoglyph-0-5-against-runs-mine-3-{digest_of({'a': 1})}"
    assert name != cell_name("homoglyph 0.5 against runs/mine", 3, {"a": 2})
    assert len(cell_name("x" * 500, 0, {})) < 120


def test_the_order_of_an_identity_does_not_matter():
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})


def test_a_frame_is_published_in_a_folder_that_is_made(tmp_path: Path):
    path = tmp_path / "new" / "cell.parquet"
    publish_frame(pl.DataFrame({"a": [1]}), path)
    assert pl.read_parquet(path)["a"].to_list() == [1]
    assert [*path.parent.iterdir()] == [path]


def test_a_frame_that_cannot_be_written_is_told(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PawnError, match=r"cannot write .*/cell.parquet: .*repeat the command: what was done"):
        publish_frame(pl.DataFrame({"a": [1]}), tmp_path / "file" / "cell.parquet")
