"""Made-up scores of clean and attacked texts."""

import numpy as np
import polars as pl

from pipelines.robustness_figures import SCORED_SCHEMA

CELLS = (("none", None, None), ("swap", 0.5, None), ("swap", 1.0, None), ("adaptive", 0.1, "one"))


def scored_rows(seed: int = 0, texts: int = 40, calibration: int = 30) -> pl.DataFrame:
    """Two detectors, two attacks, one at two strengths; five texts of each class share a source."""
    rng = np.random.default_rng(seed)
    rows = []
    for detector in ("one", "two"):
        fixing = rng.normal(size=calibration)
        rows += [row(detector, CELLS[0], f"c{n}", 1000 + n, 0, score, "calibration") for n, score in enumerate(fixing)]
        for shift, cell in enumerate(CELLS):
            for number in range(texts):
                label = number % 2
                score = rng.normal() + 1.5 * label - 0.4 * shift * label
                rows.append(row(detector, cell, f"t{number}", number // 10, label, score, "judged"))
    return pl.DataFrame(rows, schema=SCORED_SCHEMA, orient="row")


def row(detector, cell, name, source, label, score, part):
    attack, strength, target = cell
    attacked = strength is not None
    return {
        "detector": detector,
        "attack": attack,
        "strength": strength,
        "target": target,
        "part": part,
        "id": name,
        "source": source,
        "corpus": "made-up",
        "domain": "d",
        "generator": "g" if label else "human",
        "label": label,
        "queries": 7 if target else 0 if attacked else None,
        "edit_distance": 0.25 * strength + 0.01 * source if attacked else None,
        "score": float(score),
        "score_normalised": float(score) + 0.125 * label,
    }
