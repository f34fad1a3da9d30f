"""Human texts of a corpus -> machine texts on the same subjects, by a language model at hand: more to learn from.

Corpora hold few generators, each with one way of drawing words. A detector that has seen many ways, too hot and too
cold, with and without penalties, is less easily surprised by the next.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from detect.adversarial.generation import Continuation, SamplingSettings, sample
from detect.adversarial.prompts import Prompt
from detect.splits import uniform
from features.backbone import Backbone
from features.documents import Document, text_key
from features.errors import InputError, UsageError
from features.registry import BackboneFiles, resolve
from pipelines.corpora import Corpus, CorpusOptions, group_columns
from pipelines.parts import disk_errors, publish

CONTINUE, WRITE, REWRITE = "continue", "write", "rewrite"
MODES = (CONTINUE, CONTINUE, WRITE, WRITE, REWRITE)
"""What a model is asked for, each as often as it stands here; those without a chat template are asked to go on."""

ASKED = {
    WRITE: (
        "Write {kind} on the following subject. Subject: {opening}",
        "Write {kind} of about 200 words that starts from this idea: {opening}",
        'Here is the first sentence of {kind}: "{opening}" Write another on the same subject.',
        "You are a careful writer. Compose {kind} that a reader would find natural, about: {opening}",
    ),
    REWRITE: (
        "Rewrite the following text in your own words: {passage}",
        "Polish the following text: {passage}",
        "Paraphrase this text, keeping its meaning: {passage}",
    ),
}
"""Instructions; {kind} is what `KINDS` calls the text's domain."""

KINDS = {
    "arxiv": "the abstract of a scientific paper",
    "xsum": "a news article",
    "yelp_review": "an online review",
    "squad": "a passage of an encyclopaedia article",
    "essay": "a school essay",
}
"""Domains in words; any other is "a text"."""

DRAWINGS = (
    SamplingSettings(temperature=0.7, top_p=0.9),
    SamplingSettings(temperature=0.7),
    SamplingSettings(temperature=1.0, top_p=0.9),
    SamplingSettings(temperature=1.0),
    SamplingSettings(temperature=1.0, top_k=40),
    SamplingSettings(temperature=1.2, top_p=0.95),
    SamplingSettings(temperature=1.35, top_p=0.9),
    SamplingSettings(temperature=0.9, top_p=0.95, repetition_penalty=1.15),
    SamplingSettings(temperature=1.0, top_p=0.98, repetition_penalty=1.25),
)
"""Ways of drawing tokens, each as often."""

CONTINUED_TOKENS, OPENING_TOKENS, PASSAGE_TOKENS = 30, 24, 70
"""Of a human text: what is continued, what names the subject, what is written anew."""

FEWEST_WORDS = 25
"""A shorter answer is none."""

_PREAMBLE = re.compile(r"^(here|sure|certainly|of course|the following)\b[^:.]{0,120}:\s*", re.IGNORECASE)
_GROUP = ("dataset", "split", "pair_id")


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """What `pawn generate` was asked for.

    Attributes:
        inputs: labelled files; their human texts are written after.
        output: Parquet file in the project's one form.
        columns: how to read the files.
        model: causal language model that writes.
        texts: how many, at most one for each human text.
        new_tokens: of each text at most.
        batch_size: texts written together.
        seed: of every choice.
        device: "cpu" or "cuda"; None: cuda when there is one.
    """

    inputs: Sequence[str]
    output: Path
    columns: CorpusOptions
    model: str
    texts: int
    new_tokens: int = 150
    batch_size: int = 48
    seed: int = 0
    device: str | None = None


@dataclass(frozen=True)
class Order:
    """One text to write: what for, how it is asked for, and how it is drawn."""

    mode: str
    drawing: int
    prompt: Prompt


def run_generation(
    request: GenerationRequest,
    say: Callable[[str], None],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Write texts into a Parquet file; returns how many. Answers that are too short are left out.

    Raises:
        PawnError: for everything that can be wrong with data, model or output.
    """
    if request.output.suffix != ".parquet":
        raise UsageError(f"expected an output that ends in .parquet, got {request.output}")
    with disk_errors(request.output, "choose another -o"):
        request.output.parent.mkdir(parents=True, exist_ok=True)  # now, not after hours
    with Corpus.open(request.inputs, request.columns) as corpus:
        corpus.check_not_replaced(request.output)
        files = resolve(request.model, progress=say)
        backbone = Backbone.load(files, device=request.device)
        found = {text_key(row.document.text): row.document for row in corpus.rows() if row.document.label == 0}
    orders = placed(list(found.values()), backbone, files, request)
    _say_alone(orders, say)
    rows: list[dict[str, Any]] = []
    done = 0
    for (mode, drawing), batch in by_way(orders):
        settings = replace(
            DRAWINGS[drawing], new_tokens=request.new_tokens, batch_size=request.batch_size, may_end=True
        )
        texts = sample(
            backbone.model,
            backbone.tokenizer,
            [order.prompt for order in batch],
            settings,
            request.seed,
        )
        done += len(batch)
        progress(done, len(orders))
        rows += [
            row
            for order, text in zip(batch, texts, strict=True)
            if (row := _row(order, text, backbone.name, request.seed)) is not None
        ]
        say(f"{mode}, {_in_words(drawing)}: {len(batch)} texts")
    _write(rows, request.output)
    return len(rows)


def _say_alone(orders: Sequence[Order], say: Callable[[str], None]) -> None:
    if alone := sum(order.prompt.document.group is None for order in orders):
        say(
            f"{alone} of {len(orders)} human texts have no pair_id: a split may part them from what is written after "
            "them, and figures in-domain will flatter"
        )


def placed(
    documents: Sequence[Document], backbone: Backbone, files: BackboneFiles, request: GenerationRequest
) -> list[Order]:
    """What is to be written: of each domain as many as of the others where it has them.

    Raises:
        InputError: when no human text is long enough.
    """
    encodings = backbone.encode([document.text for document in documents], PASSAGE_TOKENS)
    long_enough = [place for place, encoding in enumerate(encodings) if len(encoding.token_ids) >= PASSAGE_TOKENS]
    if not long_enough:
        raise InputError(f"none of {len(documents)} human texts has {PASSAGE_TOKENS} tokens; give longer ones")
    by_domain: dict[str | None, list[int]] = {}
    for place in sorted(long_enough, key=lambda place: uniform(text_key(documents[place].text), request.seed)):
        by_domain.setdefault(documents[place].domain, []).append(place)
    rank = {place: rank for places in by_domain.values() for rank, place in enumerate(places)}
    chosen = sorted(long_enough, key=lambda place: (rank[place], str(documents[place].domain)))[: request.texts]
    asks = _chat_template(files)
    return [_order(documents[place], encodings[place].token_ids, backbone, asks, request.seed) for place in chosen]


def by_way(orders: Sequence[Order]) -> list[tuple[tuple[str, int], list[Order]]]:
    """Orders with the same mode and drawing together, since they can be written in one batch."""
    ways: dict[tuple[str, int], list[Order]] = {}
    for order in orders:
        ways.setdefault((order.mode, order.drawing), []).append(order)
    return sorted(ways.items())


def _order(document: Document, token_ids: np.ndarray, backbone: Backbone, asks: Any, seed: int) -> Order:
    key = text_key(document.text)

    def draw(what: str, among: Sequence[Any]) -> int:
        return int(uniform(f"{key}:{what}", seed) * len(among))

    mode = MODES[draw("mode", MODES)] if asks is not None else CONTINUE
    drawing = draw("drawing", DRAWINGS)
    if mode == CONTINUE:
        ids = tuple(int(token) for token in token_ids[:CONTINUED_TOKENS])
        beginning = backbone.tokenizer.decode(list(ids), skip_special_tokens=True)
        return Order(mode, drawing, Prompt(document, beginning, ids, "", ()))
    asked = ASKED[mode][draw("words", ASKED[mode])].format(
        kind=KINDS.get(str(document.domain), "a text"),
        opening=backbone.tokenizer.decode([int(token) for token in token_ids[:OPENING_TOKENS]]),
        passage=backbone.tokenizer.decode([int(token) for token in token_ids[:PASSAGE_TOKENS]]),
    )
    chat = asks.apply_chat_template([{"role": "user", "content": asked}], add_generation_prompt=True, return_dict=False)
    return Order(mode, drawing, Prompt(document, "", tuple(chat), "", ()))


def _chat_template(files: BackboneFiles) -> Any:
    """The tokenizer of a model that knows a chat; None for one that only goes on."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(files.path, local_files_only=True, trust_remote_code=False)
    return tokenizer if tokenizer.chat_template else None


def _row(order: Order, text: Continuation, generator: str, seed: int) -> dict[str, Any] | None:
    """The text in the project's one form; None where nothing was written.

    Half of the continuations keep the opening that a person wrote, as in corpora of continuations.
    """
    document = order.prompt.document
    key = text_key(document.text)
    kept = order.mode == CONTINUE and uniform(f"{key}:kept", seed) < 0.5
    answer = text.text if order.mode == CONTINUE else without_preamble(text.text)
    written = text.whole if kept else answer
    if len(written.split()) < FEWEST_WORDS:
        return None
    group = dict.fromkeys(_GROUP) if document.group is None else group_columns(document.group)
    return {
        "id": f"{order.mode}:{key}",
        **group,
        "domain": document.domain,
        "generator": generator,
        "attack": order.mode,
        "label": 1,
        "text": written,
        **_drawn(order.drawing),
    }


def without_preamble(text: str) -> str:
    """An answer without what a chat model says before it, and without quotation marks around it."""
    answer = _PREAMBLE.sub("", text, count=1).strip()
    quoted = len(answer) > 1 and answer[0] == answer[-1] == '"'
    return answer[1:-1].strip() if quoted else answer


def _drawn(drawing: int) -> dict[str, float]:
    """How a text was drawn, as columns."""
    return {name: getattr(DRAWINGS[drawing], name) for name in ("temperature", "top_p", "top_k", "repetition_penalty")}


def _in_words(drawing: int) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in _drawn(drawing).items())


def _write(rows: Sequence[dict[str, Any]], path: Path) -> None:
    if not rows:
        raise InputError(f"the model wrote no text of {FEWEST_WORDS} words; give more texts or another --model")
    with disk_errors(path, "then repeat the command"):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        texts = ("id", *_GROUP, "domain", "generator", "attack", "text")
        schema = {"label": pl.Int8(), **dict.fromkeys(texts, pl.String())}
        pl.DataFrame(rows, schema_overrides=schema).write_parquet(temporary)
        publish(temporary, path)
