"""A run of results: parts that survive a kill, what cannot be written, and the summary."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from features.errors import PawnError, UsageError
from pipelines.results import RESULT_SCHEMA, Summary
from tests.pipelines.result_rows import (
    BLOCKS,
    METADATA,
    OUTPUTS,
    ROWS,
    SUMMARY,
    parts_of,
    rows_of,
    scored,
    write,
    writer,
)

# --- resume


@pytest.mark.parametrize("name", ["o.parquet", "o.csv"])
def test_a_run_goes_on_after_the_parts_of_the_same_identity(tmp_path, name):
    out = tmp_path / name
    first = writer(out)
    assert (first.rows_done, first.restarted, first.already_complete) == (0, False, False)
    for block in BLOCKS[:2]:
        first.write_part(block)
    second = writer(out)
    assert (second.rows_done, second.restarted, second.already_complete) == (3, False, False)
    second.write_part(BLOCKS[2])
    assert second.rows_done == 3
    assert second.finish(METADATA) == Summary(**SUMMARY, duplicate_ids=2, out=str(out))
    assert rows_of(out) == ROWS


def test_parts_of_another_identity_are_thrown_away_and_that_is_told(tmp_path):
    out = tmp_path / "o.csv"
    writer(out).write_part(ROWS[:3])
    other = writer(out, detector="d2")
    assert (other.rows_done, other.restarted) == (0, True)
    assert [path.name for path in parts_of(out).iterdir()] == ["run.json"]
    other.write_part(ROWS[3:])
    other.finish(METADATA)
    assert rows_of(out) == ROWS[3:]


def test_an_unreadable_run_file_means_another_run(tmp_path):
    out = tmp_path / "o.csv"
    writer(out).write_part(ROWS)
    for content in ("", "[]", '"x"', "{}"):
        (parts_of(out) / "run.json").write_text(content)
        assert writer(out).restarted


def test_only_the_unbroken_sequence_from_row_0_counts(tmp_path):
    out = tmp_path / "o.csv"
    results = writer(out)
    for block in BLOCKS:
        results.write_part(block)
    paths = sorted(parts_of(out).glob("part-*"))
    assert [path.name[5:30] for path in paths] == [
        "000000000000-000000000001",
        "000000000002-000000000002",
        "000000000003-000000000005",
    ]
    paths[1].unlink()
    assert writer(out).rows_done == 2
    assert sorted(parts_of(out).glob("part-*")) == paths[:1]


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "rename", "copy"])
def test_a_damaged_part_is_dropped_with_those_after_it(tmp_path, damage):
    out, other = tmp_path / "o.csv", tmp_path / "other.csv"
    blocks = [[scored(f"{block} {row}", math.sin(row)) for row in range(100)] for block in range(3)]
    for path, identity in ((out, "d1"), (other, "d2")):
        results = writer(path, detector=identity)
        for block in blocks:
            results.write_part(block)
    part = sorted(parts_of(out).glob("part-*"))[1]
    data = bytearray(part.read_bytes())
    if damage == "flip":  # a bit of a score: without checksums, read as another number
        scores = pq.read_metadata(part).row_group(0).column(list(RESULT_SCHEMA).index("score"))
        data[scores.dictionary_page_offset + 400] ^= 1
        part.write_bytes(data)
        assert len(pq.ParquetFile(part).read()) == 100
    elif damage == "rename":  # as many rows as its name does not say
        part.rename(part.with_name("part-000000000100-000000000200.parquet"))
    elif damage == "copy":  # sound, but of another run
        part.write_bytes((parts_of(other) / part.name).read_bytes())
    else:
        part.write_bytes(data[: len(data) // 2] if damage == "cut" else b"")
    again = writer(out)
    assert again.rows_done == 100
    assert len(list(parts_of(out).glob("part-*"))) == 1
    for block in blocks[1:]:
        again.write_part(block)
    again.finish(METADATA)
    assert [row["id"] for row in rows_of(out)] == [row["id"] for block in blocks for row in block]


def test_a_part_that_is_damaged_during_the_run_is_an_error_and_the_output_is_untouched(tmp_path):
    out = tmp_path / "o.csv"
    out.write_text("before")
    results = writer(out)
    results.write_part(ROWS)
    next(parts_of(out).glob("part-*")).write_bytes(b"")
    with pytest.raises(PawnError, match=r"part-000000000000-000000000005\.parquet was damaged or removed"):
        results.finish(METADATA)
    assert out.read_text() == "before"
    assert writer(out).rows_done == 0


def test_half_written_files_of_a_killed_run_are_removed_and_foreign_files_kept(tmp_path):
    out = tmp_path / "o.csv"
    writer(out).write_part(ROWS)
    for name in ("part-000000000006-000000000007.tmp", "final.tmp", "notes.txt"):
        (parts_of(out) / name).write_text("x")
    results = writer(out)
    assert results.rows_done == 6
    results.finish(METADATA)
    assert [path.name for path in parts_of(out).iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_complete_output_of_the_same_identity_is_not_computed_again(tmp_path, name):
    out = tmp_path / name
    summary = write(out)
    stamp = out.stat().st_mtime_ns
    again = writer(out)
    assert (again.already_complete, again.rows_done, again.restarted) == (True, 6, False)
    assert again.summary() == again.finish(METADATA) == summary
    assert out.stat().st_mtime_ns == stamp
    assert not parts_of(out).exists()
    with pytest.raises(ValueError, match=rf"{name} is complete already"):
        again.write_part(ROWS)


@pytest.mark.parametrize("name", ["o.parquet", "o.csv"])
def test_a_changed_or_cut_or_other_output_is_not_complete(tmp_path, name):
    out = tmp_path / name
    write(out)
    assert not writer(out, detector="d2").already_complete
    whole = out.read_bytes()
    out.write_bytes(whole[:-3])
    assert not writer(out).already_complete
    out.unlink()
    assert not writer(out).already_complete


def test_parts_left_by_a_kill_after_the_final_rename_are_removed(tmp_path):
    out = tmp_path / "o.parquet"
    writer(out).write_part(ROWS)
    kept = {path.name: path.read_bytes() for path in parts_of(out).iterdir()}
    writer(out).finish(METADATA)
    parts_of(out).mkdir()
    for name, data in kept.items():
        (parts_of(out) / name).write_bytes(data)
    assert writer(out).already_complete
    assert not parts_of(out).exists()


def test_a_kill_between_a_csv_and_its_metadata_is_finished_from_the_parts(tmp_path):
    out = tmp_path / "o.csv"
    results = writer(out)
    results.write_part(ROWS)
    out.write_text("the rows, but without o.csv.meta.json")
    again = writer(out)
    assert (again.already_complete, again.rows_done) == (False, 6)
    again.finish(METADATA)
    assert rows_of(out) == ROWS


def test_finishing_twice_changes_nothing(tmp_path):
    results = writer(tmp_path / "o.csv")
    results.write_part(ROWS)
    assert results.finish(METADATA) == results.finish(METADATA)
    assert rows_of(tmp_path / "o.csv") == ROWS


def test_two_runs_into_one_file_do_not_mix(tmp_path):
    out = tmp_path / "o.csv"
    first = writer(out)
    first.write_part(ROWS[:2])
    writer(out, detector="d2").write_part(ROWS[2:])
    with pytest.raises(PawnError, match=r"another run has taken over .*\.o\.csv\.parts"):
        first.finish(METADATA)


def test_rows_that_went_missing_are_an_error(tmp_path):
    results = writer(tmp_path / "o.csv")
    results.write_part(ROWS)
    with pytest.raises(PawnError, match=r"expected 1,007 rows, got 6: the input changed"):
        results.finish(METADATA, expected_rows=1007)
    assert results.finish(METADATA, expected_rows=6).rows == 6


def test_an_empty_part_and_an_early_summary_are_errors_of_the_caller(tmp_path):
    results = writer(tmp_path / "o.csv")
    with pytest.raises(ValueError, match="at least one row in a part"):
        results.write_part([])
    with pytest.raises(ValueError, match="one that is under way"):
        results.summary()


# --- what cannot be written


@pytest.mark.parametrize("name", ["o.xlsx", "o", "o.parquet.gz", "o.gz", ".csv"])
def test_an_unknown_output_extension_is_a_usage_error(tmp_path, name):
    with pytest.raises(UsageError, match=rf"format of .*{name} by its extension; name it \.parquet, \.csv"):
        writer(tmp_path / name)


def test_an_output_that_cannot_be_written_is_found_before_any_work(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(UsageError, match=r"output folder .*gone does not exist; create it first: mkdir -p"):
        writer(tmp_path / "gone" / "o.csv")
    with pytest.raises(UsageError, match=r"file is a file, not a folder"):
        writer(tmp_path / "file" / "o.csv")
    with pytest.raises(UsageError, match=r"folder\.csv is a folder; give the name of a file in it"):
        writer(tmp_path / "folder.csv")
    with pytest.raises(UsageError, match=r"o+\.csv: File name too long"):
        writer(tmp_path / f"{'o' * 250}.csv")
    (tmp_path / ".o.csv.parts").write_text("in the way")
    with pytest.raises(UsageError, match=r"cannot write .*o\.csv: File exists: .*\.o\.csv\.parts"):
        writer(tmp_path / "o.csv")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes wherever it likes")
def test_a_folder_without_write_permission_is_found_before_any_work(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UsageError, match=r"cannot write .*o\.csv: Permission denied"):
        writer(tmp_path / "o.csv")


FULL_DISK = r"cannot write .*: .*No space left on device.* \([\d,]+ bytes are free there\); finished parts"
needs_dev_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")


@needs_dev_full
def test_a_full_disk_during_a_part_keeps_the_parts_before_it(tmp_path):
    out = tmp_path / "o.parquet"
    results = writer(out)
    results.write_part(ROWS[:2])
    (parts_of(out) / "part-000000000002-000000000005.tmp").symlink_to("/dev/full")
    with pytest.raises(PawnError, match=FULL_DISK):
        results.write_part(ROWS[2:])
    assert writer(out).rows_done == 2
    results.write_part(ROWS[2:])
    results.finish(METADATA)
    assert rows_of(out) == ROWS


@needs_dev_full
@pytest.mark.parametrize("name", OUTPUTS)
def test_a_full_disk_at_the_end_keeps_all_parts_and_the_old_output(tmp_path, name):
    out = tmp_path / name
    out.write_text("before")
    results = writer(out)
    results.write_part(ROWS)
    (parts_of(out) / "final.tmp").symlink_to("/dev/full")
    with pytest.raises(PawnError, match=FULL_DISK):
        results.finish(METADATA)
    assert out.read_text() == "before"
    again = writer(out)
    assert again.rows_done == 6
    again.finish(METADATA)
    assert rows_of(out) == ROWS


def test_a_file_size_limit_is_a_pawn_error_that_names_the_path(tmp_path):
    script = f"""
import resource, pathlib
from pipelines.results import ResultWriter
results = ResultWriter(pathlib.Path({str(tmp_path / "o.parquet")!r}), identity={{}})
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
results.write_part([{{"id": str(i * i), "status": "ok"}} for i in range(9999)])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "PawnError: cannot write " in done.stderr
    assert "File too large" in done.stderr


def test_a_closed_standard_output_is_left_to_the_command_line(tmp_path):
    script = """
from pipelines.results import ResultWriter
results = ResultWriter(None, identity={})
results.write_part([{"id": str(i), "status": "ok"} for i in range(99999)])
results.finish({})
"""
    command = f"{sys.executable} -c '{script}' | head -1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("id,status")
    assert "BrokenPipeError" in done.stderr
    assert "PawnError" not in done.stderr


# --- the summary


def test_duplicate_ids_are_counted_exactly_over_parts(tmp_path):
    values = [i * 7919 % 1009 for i in range(3000)]  # each of 1,009 ids two or three times
    blocks = [[scored(str(value)) for value in values[i : i + 271]] for i in range(0, 3000, 271)]
    assert write(tmp_path / "o.csv", blocks).duplicate_ids == 3000 - 1009


def test_the_summary_says_what_a_person_wants_to_know(tmp_path):
    text = write(tmp_path / "o.csv").text()
    assert text.splitlines() == [
        "6 rows: 4 scored, 1 flagged as machine-written",
        "2 without a score: 1 null, 1 too_short",
        "2 rows have the id of an earlier row",
        f"Written to {tmp_path / 'o.csv'}",
    ]
