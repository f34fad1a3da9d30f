"""Written continuations as Parquet in the project's one form, and back."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from detect.adversarial.generation import Continuation
from detect.adversarial.prompts import Prompt
from features.documents import Document
from features.errors import InputError
from pipelines.corpora import group_columns
from pipelines.parts import disk_errors, publish

TEXT_SCHEMA: dict[str, pl.DataType] = {
    **dict.fromkeys(("id", "dataset", "split", "domain", "generator", "attack"), pl.String()),
    "label": pl.Int8(),
    **dict.fromkeys(("pair_id", "text", "prompt", "whole"), pl.String()),
    "token_ids": pl.List(pl.Int32()),
}
"""`pawn data`'s columns, then the prompt, prompt and text as one, and the text's tokens as they were drawn."""


@dataclass(frozen=True)
class TextSet:
    """Continuations of some prompts by one writer.

    Attributes:
        name: of its file.
        generator: the writer; "human" for human continuations.
        attack: what was done to the writer; "none" where nothing was.
    """

    name: str
    generator: str
    attack: str = "none"

    @property
    def label(self) -> int:
        """0 human, 1 machine."""
        return 0 if self.generator == "human" else 1


def human_texts(prompts: Sequence[Prompt]) -> list[Continuation]:
    """How the writers of the prompts went on."""
    return [Continuation(prompt.human_ids, prompt.human, f"{prompt.text} {prompt.human}") for prompt in prompts]


def as_documents(kind: TextSet, prompts: Sequence[Prompt], texts: Sequence[Continuation]) -> list[Document]:
    """Continuations as labelled documents, each of the group of the text that its prompt was cut from."""
    return [
        Document(
            id=f"{kind.name}:{number}",
            text=text.text,
            label=kind.label,
            domain=prompt.document.domain,
            generator=kind.generator,
            attack=kind.attack,
            group=prompt.document.group,
        )
        for number, (prompt, text) in enumerate(zip(prompts, texts, strict=True))
    ]


def write_texts(path: Path, kind: TextSet, prompts: Sequence[Prompt], texts: Sequence[Continuation]) -> None:
    """Write a set whole or not at all; its rows have the groups of the texts that the prompts were cut from.

    Raises:
        PawnError: when the disk refuses.
    """
    rows = [
        _place(document.group)
        | {
            **{name: getattr(document, name) for name in ("id", "domain", "generator", "attack", "label", "text")},
            "prompt": prompt.text,
            "whole": text.whole,
            "token_ids": list(text.token_ids),
        }
        for document, prompt, text in zip(as_documents(kind, prompts, texts), prompts, texts, strict=True)
    ]
    with disk_errors(path, "then repeat the command: what was written is kept"):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        pl.DataFrame(rows, schema=TEXT_SCHEMA).write_parquet(temporary)
        publish(temporary, path)


def read_texts(path: Path, prompts: Sequence[Prompt]) -> list[Continuation]:
    """What `write_texts` wrote on these prompts.

    Raises:
        InputError: when the file is damaged or of other prompts.
    """
    try:
        frame = pl.read_parquet(path, columns=["token_ids", "text", "whole", "prompt"])
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(f"{path} cannot be read ({error}); remove it and repeat the command") from error
    if frame["prompt"].to_list() != [prompt.text for prompt in prompts]:
        raise InputError(f"{path} holds texts on other prompts than these; remove it and repeat the command")
    return [Continuation(tuple(row["token_ids"]), row["text"], row["whole"]) for row in frame.iter_rows(named=True)]


def _place(group: str | None) -> dict[str, str | None]:
    """The columns that make up the group again."""
    return dict.fromkeys(("dataset", "split", "pair_id")) if group is None else dict(group_columns(group))
