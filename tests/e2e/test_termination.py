"""Signals to real processes that record a run, and what the store holds afterwards."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run as StoredRun

from pipelines.tracking import MlflowRun, open_tracker
from tests.e2e.runs import Toy, environment, finish, human_text, start, write_jsonl

WAITING = """
import time
import click
from pipelines import cli
from pipelines.tracking import open_tracker

@click.command()
@click.argument("uri")
def wait(uri):
    with open_tracker(uri, say=print).run("train", "mine", {}) as run, run.child("a fold", {}) as child:
        child.metrics({"loss": 0.5})
        print("waiting", flush=True)
        time.sleep(60)

cli.cli = wait
cli.main()
"""


@pytest.fixture
def waiting(run_store: str, tmp_path: Path) -> "subprocess.Popen[bytes]":
    """A command in the middle of a run with a child, with the signals of a fresh process."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", WAITING, run_store], env=environment(tmp_path), **pipes)
    assert process.stdout is not None
    assert process.stdout.readline() == b"waiting\n", process.communicate()
    return process


def stored(uri: str) -> list[StoredRun]:
    client = MlflowClient(tracking_uri=uri)
    return list(client.search_runs([found.experiment_id for found in client.search_experiments()]))


@pytest.mark.parametrize(
    ("sent", "code", "told"),
    [(signal.SIGTERM, 143, "Terminated. What was"), (signal.SIGINT, 130, "Interrupted. What was")],
)
def test_a_signal_ends_a_run_and_its_child_as_killed(
    sent: signal.Signals, code: int, told: str, waiting: "subprocess.Popen[bytes]", run_store: str
) -> None:
    waiting.send_signal(sent)
    result = finish(waiting)
    assert result.code == code
    assert told in result.err
    assert "Traceback" not in result.err
    runs = stored(run_store)
    assert {run.info.run_name: run.info.status for run in runs} == {"mine": "KILLED", "a fold": "KILLED"}
    (child,) = (run for run in runs if run.info.run_name == "a fold")
    assert child.data.metrics["loss"] == 0.5  # what waited to be written is


def test_two_signals_at_once_as_timeout_sends_them_are_one(waiting: "subprocess.Popen[bytes]", run_store: str) -> None:
    for _ in range(20):
        waiting.send_signal(signal.SIGTERM)
        time.sleep(0.002)
    assert finish(waiting).code == 143
    runs = stored(run_store)
    assert [run.info.status for run in runs] == ["KILLED"] * 2
    assert {run.data.tags["pawn.error"] for run in runs} == {"Terminated: by SIGTERM"}


def test_an_extraction_that_is_terminated_is_on_record_as_killed(run_store: str, toy: Toy, tmp_path: Path) -> None:
    rng = random.Random(1)
    rows = [{"id": str(number), "text": human_text(rng, 300)} for number in range(20_000)]  # a minute or more
    data = write_jsonl(tmp_path / "long.jsonl", rows)
    options = ("--backbone", toy.model, "--cache", tmp_path / "cache", "--track", "--tracking-uri", run_store)
    process = start(tmp_path, "extract", data, *options)
    until = time.monotonic() + 60
    while process.poll() is None and not list(tmp_path.glob("cache/*/*.parquet")) and time.monotonic() < until:
        time.sleep(0.1)
    assert [run.info.status for run in stored(run_store)] == ["RUNNING"]
    process.send_signal(signal.SIGTERM)
    result = finish(process)
    assert (result.code, [run.info.status for run in stored(run_store)]) == (143, ["KILLED"]), result.err


def test_a_process_that_is_told_to_ignore_the_signal_does(tmp_path: Path) -> None:
    asked = (
        "import os; from pipelines.termination import raise_on_sigterm; raise_on_sigterm(); os.kill(os.getpid(), 15)"
    )
    ignoring = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {asked}; print('alive')"
    options = {"env": environment(tmp_path), "capture_output": True}
    ended, alive = (subprocess.run([sys.executable, "-c", code], **options) for code in (asked, ignoring))
    assert ended.returncode == 1
    assert b"Terminated: by SIGTERM" in ended.stderr
    assert (alive.returncode, alive.stdout) == (0, b"alive\n")


def test_a_run_that_is_interrupted_while_it_begins_does_not_stay_running(
    run_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(MlflowClient, "log_batch", interrupted)
    with pytest.raises(KeyboardInterrupt), open_tracker(run_store, say=print).run("train", "mine", {}):
        pass
    assert [run.info.status for run in stored(run_store)] == ["KILLED"]


def test_a_run_that_is_interrupted_while_it_ends_does_not_stay_running(
    run_store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended, interrupted = MlflowRun.end, []

    def interrupted_once(run: MlflowRun, *how: Any) -> None:
        if not interrupted:
            interrupted.append(True)
            raise KeyboardInterrupt
        ended(run, *how)

    monkeypatch.setattr(MlflowRun, "end", interrupted_once)
    with pytest.raises(KeyboardInterrupt), open_tracker(run_store, say=print).run("train", "mine", {}):
        pass
    assert [run.info.status for run in stored(run_store)] == ["KILLED"]
