"""Files whole or not at all, whoever else writes them."""

import threading
from pathlib import Path

import pytest

from features.whole_files import whole_file


def test_a_file_gets_its_name_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "numbers.bin"
    path.write_bytes(b"old")
    with whole_file(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError), whole_file(tmp_path / "numbers.bin") as file:
        file.writelines([b"half", None])  # type: ignore[list-item]  # as a disk that is full in the middle
    assert list(tmp_path.iterdir()) == []


def test_two_at_once_both_end_and_one_of_them_stays(tmp_path: Path) -> None:
    path, both = tmp_path / "numbers.bin", threading.Barrier(2)

    def write(content: bytes) -> None:
        with whole_file(path) as file:
            file.write(content)
            both.wait(timeout=10)

    writers = [threading.Thread(target=write, args=(content,)) for content in (b"one", b"other")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert path.read_bytes() in (b"one", b"other")
    assert list(tmp_path.iterdir()) == [path]
