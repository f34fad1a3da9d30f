"""The demo: texts found and written on this machine, so that a score can be seen with nothing at hand.

The human texts are long docstrings of Python's own standard library. The machine texts are written on the spot
by the language model that the detector reads with. Both are found or drawn the same way every time.
"""

import ast
import inspect
import os
import re
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from detect.measures import auroc
from features.backbone import Backbone
from features.documents import Status
from features.errors import PawnError
from pipelines.scoring import Scorer

MIN_WORDS = 120
"""Shortest docstring that is taken: about as long as the shortest text that is written."""

MIN_NEW_TOKENS, MAX_NEW_TOKENS = 120, 180
TEMPERATURE, TOP_P = 1.0, 0.95

NOT_LIBRARY = {"test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages"}
"""Folders below the standard library that hold tests, an editor, a grammar, other people's packages."""

OPENINGS = (
    "The history of the lighthouse begins",
    "In this essay I want to argue",
    "The city council voted on Tuesday to",
    "To make a good vegetable soup,",
    "The configuration file tells the server which",
    "My grandmother used to say that",
    "Researchers who study the migration of birds",
    "The second half of the match was",
)
"""How the written texts begin: ours, and not part of what is scored."""

NOTICE = re.compile(r"copyright|licen[cs]e|warrant", re.IGNORECASE)
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
LIST_ITEM = re.compile(r"([-*+•]|\(?(\d{1,2}|[A-Za-z])[.)])\s")
NOT_PROSE = re.compile(r">>>|::\s*$|^[=\-~^*_+|#\s]+$|[|{}<>=\\`_/@]{2}|\t|\w\(|https?:", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Sample:
    """A text of known origin."""

    source: str
    text: str
    label: int  # 0 human, 1 machine


@dataclass(frozen=True, slots=True)
class ScoredSample:
    """A text of known origin with what the detector made of it."""

    sample: Sample
    n_tokens: int
    score: float
    p_value: float
    is_machine: bool


@dataclass(frozen=True, slots=True)
class DemoResult:
    """Every text with its score, human ones first, and how well the two kinds came apart."""

    rows: list[ScoredSample]
    fpr: float
    auroc: float

    def flagged(self, label: int) -> tuple[int, int]:
        """How many texts of a label were called machine-written, and how many there are."""
        verdicts = [row.is_machine for row in self.rows if row.sample.label == label]
        return sum(verdicts), len(verdicts)


def run_demo(scorer: Scorer, *, texts: int, seed: int, say: Callable[[str], None]) -> DemoResult:
    """Find human texts, write machine texts, score both.

    Args:
        scorer: a detector with a calibration, and its language model.
        texts: how many of each kind.
        seed: of the writing.
        say: told of each stage before it begins.

    Raises:
        PawnError: when the standard library has too few long docstrings, or a text gets no score.
    """
    say("looking for long docstrings in Python's standard library...")
    samples = docstring_samples(Path(sysconfig.get_paths()["stdlib"]), texts)
    say(f"writing {texts} texts with {scorer.extractor.backbone.name} (seed {seed})...")
    samples += written_samples(scorer.extractor.backbone, texts, seed)
    say(f"scoring {len(samples)} texts with {scorer.detector.detector.name}...")
    return _scored(scorer, samples)


def docstring_samples(stdlib: Path, count: int) -> list[Sample]:
    """A piece of prose out of the docstrings of each of `count` modules, spread over the alphabet.

    Args:
        stdlib: folder of Python modules.
        count: how many modules.

    Raises:
        PawnError: when fewer modules have a docstring with that much prose.
    """
    found: list[Sample] = []
    for path in modules(stdlib):
        name = ".".join(path.relative_to(stdlib).with_suffix("").parts).removesuffix(".__init__")
        prose = next(filter(None, map(prose_of, docstrings(path))), None)
        if prose:
            found.append(Sample(f"{name} docstring", prose, 0))
    if len(found) < count:
        raise PawnError(
            f"expected {count} modules with a docstring of {MIN_WORDS} words of prose below {stdlib}, found "
            f"{len(found)}; ask for fewer with --texts, or use a Python that has its standard library's source"
        )
    return [found[i * len(found) // count] for i in range(count)]


def written_samples(backbone: Backbone, count: int, seed: int) -> list[Sample]:
    """Texts that a language model writes on `OPENINGS`; the same on every call with the same seed.

    The global random state is as before afterwards.
    """
    openings = [OPENINGS[i % len(OPENINGS)] for i in range(count)]
    encodings = backbone.encode(openings, MAX_NEW_TOKENS)
    longest = max(len(encoding.token_ids) for encoding in encodings)
    ids = torch.zeros(count, longest, dtype=torch.long)  # (texts, longest), padded on the left
    mask = torch.zeros_like(ids)
    for row, encoding in enumerate(encodings):
        ids[row, longest - len(encoding.token_ids) :] = torch.from_numpy(encoding.token_ids)
        mask[row, longest - len(encoding.token_ids) :] = 1
    model: Any = backbone.model
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(seed)
        written = model.generate(
            input_ids=ids.to(backbone.device),
            attention_mask=mask.to(backbone.device),
            do_sample=True,
            temperature=TEMPERATURE,
            top_p=TOP_P,
            top_k=0,
            min_new_tokens=MIN_NEW_TOKENS,
            max_new_tokens=MAX_NEW_TOKENS,
            pad_token_id=model.generation_config.eos_token_id,
        )
    texts = backbone.tokenizer.decode_batch(written[:, longest:].tolist(), skip_special_tokens=True)
    return [
        Sample(f'written by {backbone.name}: "{_first_words(opening)} ..."', one_paragraph(text), 1)
        for opening, text in zip(openings, texts, strict=True)
    ]


def _first_words(opening: str) -> str:
    return " ".join(opening.split()[:3])


def one_paragraph(text: str) -> str:
    """The text on one line without control characters: its layout then says nothing about who wrote it."""
    return "".join(c for c in " ".join(text.split()) if c.isprintable())


def prose_of(docstring: str) -> str | None:
    """The first `MIN_WORDS` words of uninterrupted prose, to the end of their paragraph; None without as many.

    Code, doctests, lists, tables, headings, legal notices and indented blocks interrupt.
    """
    run: list[str] = []
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(docstring)):
        run = [*run, paragraph] if _is_prose(paragraph) else []
        text = one_paragraph(" ".join(run))
        if len(text.split()) >= MIN_WORDS:
            return text
    return None


def _is_prose(paragraph: str) -> bool:
    lines = paragraph.splitlines()
    if any(line.startswith(" ") or LIST_ITEM.match(line) for line in lines):
        return False
    if NOT_PROSE.search(paragraph) or NOTICE.search(paragraph):
        return False
    return paragraph[:1].isupper() and paragraph.rstrip()[-1:] in ".?!" and len(paragraph.split()) >= 12


def modules(stdlib: Path) -> Iterator[Path]:
    """The library's own source files, in alphabetical order."""
    for folder, below, names in os.walk(stdlib):
        below[:] = sorted(set(below) - NOT_LIBRARY)
        yield from (Path(folder, name) for name in sorted(names) if name.endswith(".py"))


def docstrings(path: Path) -> Iterator[str]:
    """The docstrings of a module, its classes and its functions."""
    try:
        with warnings.catch_warnings(action="ignore"):  # old modules have invalid escapes
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return  # a template, or unreadable: not a module then
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and (docstring := ast.get_docstring(node, clean=False)):
            yield docstring


def _scored(scorer: Scorer, samples: list[Sample]) -> DemoResult:
    frame = scorer.score([sample.text for sample in samples])
    rows = []
    for sample, row in zip(samples, frame.iter_rows(named=True), strict=True):
        if row["status"] != Status.OK:
            raise PawnError(f"{sample.source} got no score: {row['status']}; try another --seed")
        rows.append(ScoredSample(sample, row["n_tokens"], row["score"], row["p_value"], bool(row["is_machine"])))
    labels, scores = [row.sample.label for row in rows], [row.score for row in rows]
    assert scorer.fpr is not None  # the detectors that the demo runs with are calibrated
    return DemoResult(rows, scorer.fpr, auroc(labels, scores))
