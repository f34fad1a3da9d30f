"""The detector that ships, on real texts that it was not trained on."""

from pathlib import Path

import polars as pl
import pytest
from sklearn.metrics import roc_auc_score

from detect.catalog import DEFAULT_DETECTOR, PRETRAINED, load_detector
from detect.splits import split_groups
from pipelines import Scorer, ScoringSettings
from pipelines.corpora import Corpus, CorpusOptions
from pipelines.fitting import SPLIT

TEXTS_OF_EACH_KIND = 25
MOST_BYTES = 8_000_000


def test_the_shipped_detector_is_small_and_calibrated_on_thousands_of_texts() -> None:
    folder = PRETRAINED / DEFAULT_DETECTOR
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(file.stat().st_size for file in files) <= MOST_BYTES
    # LightGBM's own text is data like the others: nothing of it is run.
    assert {file.suffix for file in files} <= {".json", ".safetensors", ".md", ".txt"}
    calibration = load_detector().calibration
    assert calibration is not None
    assert calibration.smallest_fpr < 0.005  # of the smallest domain in the smallest band


@pytest.mark.slow
def test_the_shipped_detector_tells_held_out_texts_apart(shared_data: Path, backbone_home: Path) -> None:
    files = sorted(str(path) for path in shared_data.glob("*.parquet"))
    with Corpus.open(files, CorpusOptions(labelled=True)) as corpus:
        documents = [row.document for row in corpus.rows()]
    parts = split_groups(documents, SPLIT, seed=0)
    frame = pl.DataFrame(
        {"text": [d.text for d in documents], "label": [d.label for d in documents], "part": parts}
    ).filter(pl.col("part") == "test")
    chosen = pl.concat(frame.filter(pl.col("label") == label).sample(TEXTS_OF_EACH_KIND, seed=0) for label in (0, 1))
    scored = Scorer.load(ScoringSettings()).score(chosen["text"].to_list())
    assert scored["status"].to_list() == ["ok"] * len(chosen)
    assert roc_auc_score(chosen["label"], scored["score"]) > 0.85  # 0.98 over the whole test part
