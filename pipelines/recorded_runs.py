"""What a store holds of past runs: found by id, listed, and compared."""

import json
import tempfile
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.errors import TrackingError
from pipelines.provenance import key
from pipelines.run_store import ARTIFACTS, quiet, reason, sqlite_file
from pipelines.tracking import COST, KIND_TAG, PARENT_TAG, RECORD_FILE

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as StoredRun

SHORT_ID = 8
_PAGE = 1000

METRICS = ("auroc", "tpr_at_1pct", "real fpr_at_1pct", "real tpr_at_1pct")
"""Columns of `pawn runs` where none is asked for, as far as the runs have them."""


@dataclass(frozen=True)
class RecordedData:
    """A file of texts that a run read."""

    path: Path
    sha256: str
    context: str


@dataclass(frozen=True)
class RecordedRun:
    """A run as its store holds it. Metrics are the last of each name; those of children have `child/` before them."""

    id: str
    kind: str
    name: str
    status: str
    started: datetime
    parameters: dict[str, str]
    metrics: dict[str, float]
    data: list[RecordedData] = field(default_factory=list)

    @property
    def seconds(self) -> float | None:
        """Wall time; None for a run that did not end."""
        return self.metrics.get(COST + "wall_seconds")


def top_level_runs(
    client: "MlflowClient", experiment: str, *, kind: str | None = None, last: int | None = None
) -> list[RecordedRun]:
    """The runs of an experiment that are no part of another, newest first.

    Raises:
        TrackingError: when there is no such experiment, or the store fails.
    """
    found: list[RecordedRun] = []
    for stored in _stored_runs(client, experiment):
        run = _recorded(stored)
        if PARENT_TAG not in stored.data.tags and kind in (None, run.kind):
            found.append(run)
        if last is not None and len(found) == last:
            break
    return found


def find_run(client: "MlflowClient", experiment: str, run_id: str) -> RecordedRun:
    """The run of an id, or of the one id that begins so, with the metrics of its children.

    Raises:
        TrackingError: when no run has that id or several begin so, or the store fails.
    """
    from mlflow.exceptions import MlflowException

    try:
        with quiet():
            return _with_children(client, client.get_run(run_id))
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise TrackingError(f"cannot read run {run_id}: {reason(error)}") from error
    runs = [run for run in _stored_runs(client, experiment) if run.info.run_id.startswith(run_id)]
    if len(runs) != 1:
        told = ", ".join(run.info.run_id for run in runs[:5]) or "none does"
        raise TrackingError(f"expected the id of one run or how it begins, got {run_id!r}: {told}; see 'pawn runs'")
    with quiet():
        return _with_children(client, runs[0])


def run_record(client: "MlflowClient", run: RecordedRun) -> dict[str, Any]:
    """What a run kept as `RECORD_FILE`; of a store that was moved, from the artifacts beside it.

    Raises:
        TrackingError: when it is not there.
    """
    beside = artifacts_beside(client, run.id)
    try:
        with quiet(), tempfile.TemporaryDirectory() as scratch:
            folder = moved_artifacts(client, run.id)
            path = client.download_artifacts(run.id, RECORD_FILE, scratch) if folder is None else folder / RECORD_FILE
            content = Path(path).read_text(encoding="utf-8")
        record: dict[str, Any] = json.loads(content)
    except Exception as error:  # of the artifact store, whatever it is
        looked = "" if beside is None else f", nor is one in {beside}"
        raise TrackingError(
            f"run {run.id} has no readable {RECORD_FILE} among its artifacts ({reason(error)}){looked}: either another "
            "program recorded it, or the artifacts were moved away from the store; of a store in a SQLite file, the "
            f"folder {ARTIFACTS} belongs beside it"
        ) from error
    return record


def artifacts_beside(client: "MlflowClient", run_id: str) -> Path | None:
    """Where the artifacts of a run are if the SQLite store was moved with them; None for another store."""
    path = sqlite_file(str(client.tracking_uri))
    return None if path is None else path.parent / ARTIFACTS / run_id / "artifacts"


def moved_artifacts(client: "MlflowClient", run_id: str) -> Path | None:
    """The artifacts of a run beside its SQLite store, where the folder that the store names for them is gone.

    A store holds absolute paths, so a copy names the artifacts of the original; None where those are there.
    """
    with quiet():
        named = client.get_run(run_id).info.artifact_uri
    beside = artifacts_beside(client, run_id)
    if beside is None or not beside.is_dir() or not named.startswith("file:"):
        return None
    return None if Path(urllib.request.url2pathname(urllib.parse.urlsplit(named).path)).is_dir() else beside


def runs_table(runs: Sequence[RecordedRun], metrics: Sequence[str] = ()) -> list[list[str]]:
    """Runs as rows under a header; `metrics` are names of columns, default those of `METRICS` that there are.

    An evaluation has a figure for each protocol and detector ("corpus/pawn/auroc"): the smallest and the largest.
    """
    names = [key(name) for name in metrics] or [name for name in METRICS if any(_values(run, name) for run in runs)]
    rows = [["RUN", "STARTED", "KIND", "NAME", "STATUS", "TIME", *names]]
    for run in runs:
        started = run.started.astimezone().strftime("%Y-%m-%d %H:%M")
        time = "" if run.seconds is None else f"{run.seconds:.0f}s"
        figures = [_range(_values(run, name)) for name in names]
        rows.append([run.id[:SHORT_ID], started, run.kind, run.name, run.status.lower(), time, *figures])
    return rows


def comparison(runs: Sequence[RecordedRun], metrics: Sequence[str] = ()) -> list[list[str]]:
    """Runs side by side: a row for each setting and metric, marked `*` where the runs differ in a setting."""
    rows = [["", "", *(run.id[:SHORT_ID] for run in runs)]]
    facts = [{"run.kind": run.kind, "run.name": run.name, "run.status": run.status.lower()} for run in runs]
    data = [
        {f"data {place}": f"{found.path.name} {found.sha256[:12]}" for place, found in enumerate(run.data, 1)}
        for run in runs
    ]
    settings = [{**fact, **files, **run.parameters} for fact, files, run in zip(facts, data, runs, strict=True)]
    for name in _names(settings):
        values = [setting.get(name, "") for setting in settings]
        rows.append(["*" if len(set(values)) > 1 else "", name, *map(_cut, values)])
    chosen = {key(name) for name in metrics}
    shown = [name for name in _names([run.metrics for run in runs]) if not chosen or name in chosen]
    return rows + [["", name, *(figure(run.metrics.get(name)) for run in runs)] for name in shown]


def _values(run: RecordedRun, name: str) -> list[float]:
    """A run's metric of a name; where it has none, those of its protocols and detectors."""
    if name in run.metrics:
        return [run.metrics[name]]
    end = f"/{name.replace(' ', '_')}"  # "real fpr" of a training is "real_fpr" of an evaluation
    return [value for found, value in run.metrics.items() if found.endswith(end)]


def _range(values: Sequence[float]) -> str:
    ends = dict.fromkeys(figure(end) for end in (min(values), max(values))) if values else ()
    return "..".join(ends)


def figure(value: float | None) -> str:
    """A metric as people read it."""
    if value is None:
        return ""
    return f"{value:,.0f}" if value.is_integer() and abs(value) >= 2 else f"{value:.4g}"


def _names(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for mapping in mappings for name in mapping))


def _cut(value: str, longest: int = 60) -> str:
    line = " ".join(value.split())
    return line if len(line) <= longest else line[: longest - 3] + "..."


def _stored_runs(client: "MlflowClient", experiment: str) -> "Iterable[StoredRun]":
    """Every run of an experiment, newest first, a page at a time."""
    try:
        with quiet():
            found = client.get_experiment_by_name(experiment)
        if found is None:
            raise TrackingError(f"there is no experiment {experiment!r} in this store; choose one with --experiment")
        token = None
        while True:
            with quiet():
                page = client.search_runs(
                    [found.experiment_id], max_results=_PAGE, order_by=["start_time DESC"], page_token=token
                )
            yield from page
            token = page.token
            if not token:
                return
    except TrackingError:
        raise
    except Exception as error:  # whatever a store raises
        raise TrackingError(f"cannot read the runs of experiment {experiment!r}: {reason(error)}") from error


def _recorded(stored: "StoredRun") -> RecordedRun:
    data = []
    for used in stored.inputs.dataset_inputs if stored.inputs else ():
        tags = {tag.key: tag.value for tag in used.tags}
        source = json.loads(used.dataset.source)
        if "sha256" in source and "path" in source:
            data.append(RecordedData(Path(source["path"]), source["sha256"], tags.get("mlflow.data.context", "")))
    return RecordedRun(
        id=stored.info.run_id,
        kind=stored.data.tags.get(KIND_TAG, ""),
        name=stored.info.run_name or "",
        status=stored.info.status,
        started=datetime.fromtimestamp(stored.info.start_time / 1000, UTC),
        parameters=dict(sorted(stored.data.params.items())),
        metrics=dict(sorted(stored.data.metrics.items())),
        data=data,
    )


def _with_children(client: "MlflowClient", stored: "StoredRun") -> RecordedRun:
    """A run whose metrics have those of its descendants among them."""
    run = _recorded(stored)
    token = None
    while True:
        page = client.search_runs(
            [stored.info.experiment_id],
            f"tags.`{PARENT_TAG}` = '{run.id}'",
            max_results=_PAGE,
            order_by=["start_time ASC"],
            page_token=token,
        )
        for child in page:
            inner = _with_children(client, child)
            named = {f"{inner.name}/{name}": value for name, value in inner.metrics.items()}
            run.metrics.update(named)
        token = page.token
        if not token:
            return run
