"""What `pawn extract` does, and what it records."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from cache.codec_catalog import codec_named
from cache.store import FeatureStore
from features.backbone import Backbone
from features.extractor import Extractor
from features.registry import resolve
from pipelines.corpora import Corpus, CorpusOptions
from pipelines.extraction import ExtractionSummary, extract_corpus, load_extractor
from pipelines.options import cache_directory
from pipelines.tracked_data import record_inputs
from pipelines.tracking import COST, Tracker
from pipelines.training_data import RowsProgress, backbone_record


@dataclass(frozen=True, kw_only=True)
class ExtractionRequest:
    """What `pawn extract` was asked for: its options by name."""

    inputs: Sequence[str]
    text_column: str
    id_column: str | None
    input_format: str | None
    cache: str | None
    codec: str
    backbone: str
    max_length: int
    device: str | None
    layers: Sequence[int] = ()
    observer: str | None = None


def run_extraction(
    request: ExtractionRequest, tracker: Tracker, *, say: Callable[[str], None], progress: RowsProgress
) -> tuple[ExtractionSummary, FeatureStore]:
    """Fill a feature cache, as a run; gives what was done and the cache.

    Raises:
        PawnError: for everything that can be wrong with inputs, backbone or cache.
    """
    options = CorpusOptions(
        text_column=request.text_column, id_column=request.id_column, input_format=request.input_format
    )
    with Corpus.open(request.inputs, options) as corpus:
        total = corpus.count_rows()
        files = resolve(request.backbone, progress=say)
        extractor = load_extractor(
            Backbone.load(files, device=request.device),
            max_length=request.max_length,
            layers=request.layers,
            observer=request.observer,
        )
        codec = codec_named(request.codec, files.weights_id, extractor.fingerprint.layers)
        store = FeatureStore(cache_directory(request.cache), extractor.fingerprint, codec)
        settings = asdict(request) | features_record(extractor, store)
        with tracker.run("extract", store.folder.name, settings) as run:
            record_inputs(run, request.inputs, "extraction", request.input_format)
            progress(0, total, 0)  # the clock starts here, not after the first block
            summary = extract_corpus(
                corpus.rows(), extractor, store, lambda rows, tokens: progress(rows, total, tokens)
            )
            run.metrics({"documents": summary.rows, "failed": summary.failed} | summary.by_status)
            # What was there already is not computed again, so these differ from run to run.
            run.metrics({f"{COST}{name}": getattr(summary, name) for name in ("computed", "tokens", "shards")})
    return summary, store


def features_record(extractor: Extractor, store: FeatureStore) -> dict[str, Any]:
    """What a run says of its features: the language model, and the cache with its fingerprint."""
    cache = {"folder": str(store.folder.absolute()), "fingerprint": store.fingerprint.digest, "codec": store.codec.name}
    return {"backbone": backbone_record(extractor, store.codec), "cache": cache}
