"""Results kept cell by cell, so that a stopped run goes on: a file's name tells all that decides its content."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from pipelines.parts import disk_errors, publish

KEPT = "then repeat the command: what was done is kept"

_SHOWN_CHARACTERS = 80


def digest_of(what: object, digits: int = 16) -> str:
    """Hexadecimal digits of the hash of something JSON-able: equal things, equal digits."""
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:digits]


def cell_name(shown: str, seed: int, identity: Mapping[str, Any]) -> str:
    """A file name without its ending: words for people, the seed, then a hash of all that decides the content.

    Args:
        shown: what people know the cell by; what a file name should not hold becomes a hyphen.
        seed: of everything random in it.
        identity: JSON-able; another one is never found by mistake.
    """
    slug = "".join(c if c.isalnum() or c in "-_" else "-" for c in shown)
    return f"{slug[:_SHOWN_CHARACTERS]}-{seed}-{digest_of(dict(identity))}"


def publish_frame(frame: pl.DataFrame, path: Path) -> None:
    """Write a Parquet file whole or not at all; its folder is made where it is not there.

    Raises:
        PawnError: when the disk refuses.
    """
    with disk_errors(path, KEPT):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        frame.write_parquet(temporary)
        publish(temporary, path)
