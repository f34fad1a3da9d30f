"""The store of runs: where it is, whether it answers, and MLflow kept quiet, offline and brief."""

import logging
import os
import re
import socket
import sqlite3
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from features.errors import TrackingError

if TYPE_CHECKING:
    from mlflow import MlflowClient

DEFAULT_EXPERIMENT = "pawn-detect"
SQLITE = "sqlite:///"
ARTIFACTS = "mlartifacts"
"""Folder of the artifacts, beside a store that is a SQLite file."""

SECONDS_TO_ANSWER = 5
"""How long a store may take to accept a connection. MLflow itself would try a database for a minute."""

SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SKIP_PIP_REQUIREMENTS_CHECK": "true",  # it would ask a package index
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # what fails is raised too, and told in one line
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # A server that went away is given up in seconds: what runs is worth more than its record.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}
"""Environment that MLflow is imported under; what a person has set stays."""

_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}


def store_uri(given: str | None) -> str:
    """The store's URI: the one given, or $MLFLOW_TRACKING_URI, or mlflow.db here; SQLite files by absolute path."""
    uri = given or os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}mlflow.db"
    path = sqlite_file(uri)
    return uri if path is None else f"{SQLITE}{path}"


def sqlite_file(uri: str) -> Path | None:
    """The absolute path of a SQLite store's file; None for any other store."""
    return Path(uri.removeprefix(SQLITE)).absolute() if uri.startswith(SQLITE) and "?" not in uri else None


def shown(uri: str) -> str:
    """A URI without the name and password that may be in it."""
    return re.sub(r"://[^/@]+@", "://***@", uri)


def connect(uri: str) -> "MlflowClient":
    """A client of a store that answers; a SQLite file is made where there is none.

    Raises:
        TrackingError: when the store does not answer within seconds, or is no store of this MLflow's form.
    """
    try:
        _check_reachable(uri)
        with quiet():
            from mlflow import MlflowClient

            registry = os.environ.get("MLFLOW_REGISTRY_URI", uri)
            client = MlflowClient(tracking_uri=uri, registry_uri=registry)
            client.search_experiments(max_results=1)
    except Exception as error:  # of sockets, SQLite, SQLAlchemy, requests or MLflow: all mean that it cannot be used
        raise TrackingError(f"cannot reach the store of runs {shown(uri)}: {reason(error)}") from error
    return client


def connect_existing(uri: str) -> "MlflowClient":
    """Like `connect`, for reading: a SQLite file that is not there is an error.

    Raises:
        TrackingError: when there is no such store.
    """
    path = sqlite_file(uri)
    if path is not None and not path.is_file():
        raise TrackingError(
            f"there is no store of runs at {path}; give the one to read with --tracking-uri or $MLFLOW_TRACKING_URI"
        )
    return connect(uri)


@contextmanager
def quiet() -> Iterator[None]:
    """MLflow under `SETTINGS`, what it prints (links to its pages) on standard error."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    logger = logging.getLogger("mlflow")
    level = logger.level
    if "mlflow" in sys.modules:  # imported by somebody else, under settings of their own
        logger.setLevel(logging.CRITICAL)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        if level:
            logger.setLevel(level)


def reason(error: BaseException) -> str:
    """The first line of an error; a password in it is hidden."""
    lines = str(error).strip().splitlines()
    return shown(lines[0] if lines else type(error).__name__)


def _check_reachable(uri: str) -> None:
    """Raise what the network or SQLite has against a store, at once."""
    path = sqlite_file(uri)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=SECONDS_TO_ANSWER)
        try:
            connection.execute("BEGIN IMMEDIATE")  # fails where the file is no database, read-only or locked
            connection.rollback()
        finally:
            connection.close()
        return
    parts = urllib.parse.urlsplit(uri)
    kind = parts.scheme.partition("+")[0]
    if kind not in _PORTS or not parts.hostname:
        return
    by_proxy = kind in urllib.request.getproxies() and not urllib.request.proxy_bypass(parts.hostname)
    if not (by_proxy and kind in ("http", "https")):
        socket.create_connection((parts.hostname, parts.port or _PORTS[kind]), timeout=SECONDS_TO_ANSWER).close()
