"""Every training, evaluation and benchmark is a run in an MLflow store; the store can fail, the work goes on."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from features.errors import TrackingError
from pipelines.provenance import (
    code_version,
    command_line,
    flat,
    key,
    machine,
    package_versions,
    peak_memory,
    plain,
)
from pipelines.run_store import ARTIFACTS, DEFAULT_EXPERIMENT, connect, quiet, reason, shown, sqlite_file, store_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Metric

KIND_TAG = "pawn.kind"
PARENT_TAG = "mlflow.parentRunId"
RECORD_FILE = "run.json"
"""Artifact of every run: kind, name, settings, command, folder, code, package versions and machine, whole."""

COST = "cost/"
"""Prefix of metrics that say what a run cost; `pawn reproduce` does not compare them."""

MAX_PARAM = 6000  # characters; MLflow cuts longer ones without a word
MAX_TAG = 8000
BATCH = 100
SECONDS_BETWEEN_WRITES = 2.0

started_runs: ContextVar[list[str] | None] = ContextVar("started_runs", default=None)
"""A list that receives the id of each top-level run, where somebody wants them (`pipelines.reproduction`)."""

Found = TypeVar("Found")


class Run(Protocol):
    """One recorded run. No method raises for what the store does."""

    @property
    def id(self) -> str | None:
        """MLflow's; None where nothing is recorded."""
        ...

    def child(self, name: str, settings: Mapping[str, Any]) -> AbstractContextManager["Run"]:
        """A run below this one: a fold, an attack, a detector of a benchmark."""
        ...

    def metrics(self, values: Mapping[str, float | None], step: int | None = None) -> None:
        """Figures by name, of a step where there are steps; names under `COST` are what the run cost.

        None, for what is not defined, is left out. `tpr@1%` becomes `tpr_at_1pct` (`pipelines.provenance.key`).
        """
        ...

    def file(self, path: Path, folder: str = "") -> None:
        """Keep a copy of a file, or of a folder with all that is in it."""
        ...

    def dataset(self, path: Path, context: str) -> None:
        """Record a file of texts as an input, by its hash and the data card that describes it."""
        ...

    def detector(self, folder: Path, example: str, *, register_as: str | None = None) -> None:
        """Log a saved detector as an MLflow model, and register it where a name is given.

        Args:
            folder: what it was saved to.
            example: a text for the model's input example.
            register_as: name of the registered model that this becomes the newest version of.
        """
        ...


class Tracker(Protocol):
    """Makes runs."""

    def run(self, kind: str, name: str, settings: Mapping[str, Any]) -> AbstractContextManager[Run]:
        """A run that lasts as long as its context; an exception ends it as FAILED, an interruption as KILLED.

        Args:
            kind: the command: "train", "extract", "evaluate", "benchmark".
            name: for people.
            settings: the resolved configuration, nested as it is; backbone and cache fingerprint among it.
        """
        ...


class _Untracked:
    """The tracker and the run that record nothing."""

    id: str | None = None

    @contextmanager
    def run(self, kind: str, name: str, settings: Mapping[str, Any]) -> Iterator[Run]:
        yield self

    @contextmanager
    def child(self, name: str, settings: Mapping[str, Any]) -> Iterator[Run]:
        yield self

    def metrics(self, values: Mapping[str, float | None], step: int | None = None) -> None:
        pass

    def file(self, path: Path, folder: str = "") -> None:
        pass

    def dataset(self, path: Path, context: str) -> None:
        pass

    def detector(self, folder: Path, example: str, *, register_as: str | None = None) -> None:
        pass


UNTRACKED = _Untracked()


def _to_stderr(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def open_tracker(
    uri: str | None,
    *,
    enabled: bool = True,
    experiment: str = DEFAULT_EXPERIMENT,
    say: Callable[[str], None] = _to_stderr,
) -> Tracker:
    """What records runs. The store is reached for the first of them; where it cannot be, that is said and work goes on.

    Args:
        uri: the store; default $MLFLOW_TRACKING_URI, else the SQLite file mlflow.db in the working directory, with
            the artifacts in mlartifacts beside it.
        enabled: False records nothing, and imports no MLflow.
        experiment: that the runs belong to; made where it is not there.
        say: told when tracking fails.
    """
    if not enabled:
        return UNTRACKED
    return MlflowTracker(store_uri(uri), experiment, say)


def _experiment(client: "MlflowClient", name: str, uri: str) -> str:
    """The id of an experiment, made where it is not there."""
    from mlflow.exceptions import MlflowException

    try:
        with quiet():
            if found := client.get_experiment_by_name(name):
                return str(found.experiment_id)
            path = sqlite_file(uri)
            artifacts = None if path is None else (path.parent / ARTIFACTS).as_uri()
            try:
                return str(client.create_experiment(name, artifact_location=artifacts))
            except MlflowException:  # another process was quicker
                if found := client.get_experiment_by_name(name):
                    return str(found.experiment_id)
                raise
    except Exception as error:  # whatever a store raises
        raise TrackingError(f"cannot open experiment {name!r} in {shown(uri)}: {reason(error)}") from error


@dataclass
class _Store:
    """The store with its guard: the first failure is told once, and nothing is asked of it afterwards."""

    client: "MlflowClient"
    experiment_id: str
    say: Callable[[str], None]
    lost: bool = False

    def attempt(self, what: str, action: Callable[["MlflowClient"], Found]) -> Found | None:
        """What `action` gives, or None where the store fails or has failed."""
        if self.lost:
            return None
        try:
            with quiet():
                return action(self.client)
        except (
            Exception
        ) as error:  # a store fails in the words of sockets, SQL or MLflow; the work must not fail with it
            if getattr(error, "error_code", None) == "INVALID_PARAMETER_VALUE":  # it answers, and refuses this alone
                self.say(f"Not tracked: {what}: {reason(error)}")
                return None
            self.lost = True
            self.say(f"Tracking ends here: cannot record {what}: {reason(error)}. The work goes on without a record")
            return None


@dataclass
class MlflowTracker:
    """Runs in a store, which is reached for the first of them: what fails before costs no start of MLflow."""

    uri: str
    experiment: str
    say: Callable[[str], None]
    _store: _Store | None = None
    _unreachable: bool = False

    def _reached(self) -> _Store | None:
        if self._store is None and not self._unreachable:
            try:
                client = connect(self.uri)
                self._store = _Store(client, _experiment(client, self.experiment, self.uri), self.say)
            except TrackingError as error:
                self._unreachable = True
                self.say(f"Not tracked: {error}. The work goes on without a record; --no-track says that this is meant")
        return self._store

    @contextmanager
    def run(self, kind: str, name: str, settings: Mapping[str, Any]) -> Iterator[Run]:
        """A top-level run."""
        store = self._reached()
        if store is None:
            yield UNTRACKED
            return
        with _running(store, kind, name, settings, None) as run:
            if run.id is not None and (listener := started_runs.get()) is not None:
                listener.append(run.id)
            yield run


@dataclass
class MlflowRun:
    """A run in a store, by MLflow's client: whatever run is active in the process stays as it is."""

    store: _Store
    id: str
    kind: str
    ended: bool = False
    _pending: "list[Metric]" = field(default_factory=list)
    _written: float = field(default_factory=time.monotonic)

    @contextmanager
    def child(self, name: str, settings: Mapping[str, Any]) -> Iterator[Run]:
        """A run below this one."""
        with _running(self.store, self.kind, name, settings, self.id) as run:
            yield run

    def metrics(self, values: Mapping[str, float | None], step: int | None = None) -> None:
        """Figures by name; written every few seconds, for one that is asked for every step must cost nothing."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        found = {key(name): float(value) for name, value in values.items() if value is not None}
        self._pending += [Metric(name, value, now, step or 0) for name, value in found.items()]
        if self.ended or time.monotonic() - self._written > SECONDS_BETWEEN_WRITES:
            self.flush()

    def flush(self) -> None:
        """Write the metrics that wait."""
        pending, self._pending, self._written = self._pending, [], time.monotonic()
        for start in range(0, len(pending), BATCH):
            batch = pending[start : start + BATCH]
            self.store.attempt("metrics", lambda client, batch=batch: client.log_batch(self.id, metrics=batch))  # type: ignore[misc]  # "Cannot infer type of lambda"

    def file(self, path: Path, folder: str = "") -> None:
        """Keep a copy of a file or folder."""
        if not path.exists():
            self.store.say(f"Not tracked: there is no file {path}")
        elif path.is_dir():
            where = "/".join(filter(None, (folder, path.name)))
            self.store.attempt(f"folder {path}", lambda client: client.log_artifacts(self.id, str(path), where))
        else:
            self.store.attempt(f"file {path}", lambda client: client.log_artifact(self.id, str(path), folder or None))

    def dataset(self, path: Path, context: str) -> None:
        """Record a file of texts as an input."""
        from pipelines.tracked_data import dataset_input

        if self.store.lost:
            return
        try:
            found: DatasetInput = dataset_input(path, context)
        except Exception as error:  # a damaged card or file is told of by whoever needs it
            self.store.say(f"Not tracked: data {path}: {reason(error)}")
            return
        self.store.attempt(f"data {path}", lambda client: client.log_inputs(self.id, datasets=[found]))

    def detector(self, folder: Path, example: str, *, register_as: str | None = None) -> None:
        """Log a saved detector as an MLflow model."""
        from pipelines.tracked_models import log_detector, register

        def log(client: "MlflowClient") -> None:
            model = log_detector(client, self.id, self.store.experiment_id, folder, example)
            self.store.say(f"Logged as MLflow model models:/{model.model_id}")
            if register_as is not None:
                version = register(client, model, register_as)
                self.store.say(f"Registered as models:/{register_as}/{version}")

        self.store.attempt(f"the detector in {folder}", log)

    def end(self, status: str, seconds: float, error: BaseException | None) -> None:
        """Write what waits, what the run cost, why it failed, and how it ended."""
        cost = {"wall_seconds": seconds} | peak_memory()
        self.metrics({COST + name: value for name, value in cost.items()})
        self.flush()
        if error is not None:
            told = f"{type(error).__name__}: {error}"[:MAX_TAG]
            self.store.attempt("a failure", lambda client: client.set_tag(self.id, "pawn.error", told))
        if self.store.lost:  # perhaps it can end a run all the same: one that runs for ever misleads
            with suppress(Exception), quiet():
                self.store.client.set_terminated(self.id, status)
        self.store.attempt("a run's end", lambda client: client.set_terminated(self.id, status))
        self.ended = True


@contextmanager
def _running(
    store: _Store, kind: str, name: str, settings: Mapping[str, Any], parent: str | None
) -> Iterator[MlflowRun | _Untracked]:
    """A run that is ended in every case; `UNTRACKED` where it cannot be begun."""
    begun = time.monotonic()
    run_id = store.attempt("a run", lambda client: _begin(client, store.experiment_id, kind, name, settings, parent))
    if run_id is None:
        yield UNTRACKED
        return
    run = MlflowRun(store, run_id, kind)
    try:
        try:
            yield run
        except Exception as error:
            run.end("FAILED", time.monotonic() - begun, error)
            raise
        run.end("FINISHED", time.monotonic() - begun, None)
    except BaseException as error:
        if not run.ended:  # interrupted by a person, or terminated (`pipelines.termination`), even at its end
            run.end("KILLED", time.monotonic() - begun, error)
        raise


def _begin(
    client: "MlflowClient", experiment_id: str, kind: str, name: str, settings: Mapping[str, Any], parent: str | None
) -> str:
    """Make the run with all that is known before the work; returns its id."""
    from mlflow.entities import Param

    record = run_record(kind, name, settings)
    tags = {KIND_TAG: kind, "mlflow.source.type": "LOCAL", "mlflow.source.name": f"pawn {kind}"}
    if record["command"] is not None:
        tags["pawn.command"] = " ".join(record["command"])[:MAX_TAG]
    code = record["code"]
    if code["commit"] is not None:
        tags |= {"mlflow.source.git.commit": code["commit"], "pawn.git.dirty": str(code["dirty"]).lower()}
    tags |= {} if parent is None else {PARENT_TAG: parent}
    values = {key(name): value for name, value in flat(settings)}
    values |= {f"version.{name}": value for name, value in record["versions"].items()}
    values |= {f"machine.{name}": value for name, value in record["machine"].items()}
    params = [Param(name, _shortened(value)) for name, value in values.items()]
    run_id = str(client.create_run(experiment_id, run_name=name, tags=tags).info.run_id)
    try:
        for start in range(0, len(params), BATCH):
            client.log_batch(run_id, params=params[start : start + BATCH])
        client.log_dict(run_id, record, RECORD_FILE)
    except BaseException as error:
        with suppress(Exception):  # the store may be what failed
            client.set_terminated(run_id, "FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    return run_id


def run_record(kind: str, name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a run keeps as `RECORD_FILE`: enough to repeat it."""
    words = command_line()
    return {
        "kind": kind,
        "name": name,
        "command": None if words is None else [shown(word) for word in words],  # a URI may hold a password
        "folder": str(Path.cwd()),
        "code": asdict(code_version()),
        "versions": package_versions(),
        "machine": machine(),
        "settings": plain(settings),
    }


def _shortened(value: str) -> str:
    """A parameter's value; one that is too long says where the whole is."""
    note = f" ... (whole in {RECORD_FILE})"
    return value if len(value) <= MAX_PARAM else value[: MAX_PARAM - len(note)] + note
