"""One tiny detector for the session, trained as a person trains one, and `pawn` inside this process."""

import io
import sys
from collections.abc import Callable

import pytest

from pipelines.cli import main
from tests.e2e.runs import Result, Toy, finish, labelled_rows, start, write_jsonl
from tests.features.tiny_models import write_tiny_model

Pawn = Callable[..., Result]


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """Made by `pawn train pawn` in a process of its own, from a folder where nothing else is."""
    folder = tmp_path_factory.mktemp("toy")
    model = write_tiny_model(folder / "model")
    data = write_jsonl(folder / "train.jsonl", labelled_rows())
    options = [
        "--data",
        data.name,
        "--backbone",
        model.name,
        "--cache",
        "cache",
        "-o",
        "toy-pawn",
        "--epochs",
        2,
        "--likelihood-weight",
        0,
    ]
    result = finish(start(folder / "home", "train", "pawn", *options, cwd=folder))
    assert result.code == 0, result.err
    return Toy(model, data, folder / "cache", folder / "toy-pawn", result.err)


@pytest.fixture
def pawn(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Pawn:
    """Runs `pawn` through its real `main`, in this process: a second instead of the ten that imports take."""

    def call(*arguments: object, stdin: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "argv", ["pawn", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        assert isinstance(stop.value.code, int)
        assert "Traceback" not in err
        assert "fault of pawn-detect" not in err
        return Result(stop.value.code, out, err)

    return call
