"""Files of texts as inputs of an MLflow run: their hash, and the data card that describes them."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.card_checks import card_of_file
from pipelines.conversion import corpus_facts
from pipelines.data_cards import card_folders
from pipelines.inputs import resolve
from pipelines.layouts.files import file_sha256
from pipelines.tracking import Run

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

DIGEST_LENGTH = 36  # as long as MLflow takes it; the whole hash is in the source


def record_inputs(run: Run, given: Iterable[str], context: str, input_format: str | None = None) -> None:
    """Record every file behind paths, folders and globs as an input; standard input has no file.

    Args:
        run: whose inputs they are.
        given: what the person typed.
        context: what for: "evaluation", "calibration".
        input_format: as the person gave it; in a folder, files of other extensions are no texts.

    Raises:
        PawnError: as `pipelines.inputs.resolve`.
    """
    if names := [name for name in given if name != "-"]:
        for source in resolve(names, input_format, None)[0]:
            run.dataset(source.path, context)


def dataset_facts(path: Path) -> dict[str, Any]:
    """Path, SHA-256 and size of a file, the name and hash of its data card, and what a converted file says of itself.

    Raises:
        PawnError: when a data card is damaged.
        OSError: when the file cannot be read.
    """
    absolute = path.absolute()
    facts: dict[str, Any] = {"uri": absolute.as_uri(), "path": str(absolute), "sha256": file_sha256(path)}
    card = card_of_file(path, card_folders(None))
    if card is not None:
        facts |= {"card": card.name, "card_sha256": card.digest, "licence": card.license}
    return facts | {"bytes": path.stat().st_size, "corpus": corpus_facts(path)}


def dataset_input(path: Path, context: str) -> "DatasetInput":
    """A file as MLflow records it; `context` says what for: "training", "evaluation"."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    facts = dataset_facts(path)
    corpus = facts.pop("corpus")
    tags = {"mlflow.data.context": context, "sha256": facts["sha256"]}
    tags |= {name: facts[name] for name in ("card", "card_sha256") if name in facts}
    dataset = Dataset(
        name=path.name[:500],
        digest=facts["sha256"][:DIGEST_LENGTH],
        source_type="local",
        source=json.dumps(facts),
        profile=json.dumps({"bytes": facts["bytes"], "corpus": corpus}),
    )
    return DatasetInput(dataset, tags=[InputTag(name, value) for name, value in tags.items()])
