"""Writes the model card of a detector from its own record and from the folds of `benchmarks.generalisation`.

python -m benchmarks.model_card --detector DIR --results results.json
"""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.generalisation import table
from detect.calibration import Calibration
from detect.pawn import PawnDetector
from detect.protocol import write_bytes
from detect.zero_shot import ZERO_SHOT

CARD = Path(__file__).with_name("model_card.md")


def main() -> None:
    """Parse and write README.md into the detector's folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--recipe", default="crops+likelihood", help="the detector's recipe in the results")
    arguments = parser.parse_args()
    results = json.loads(arguments.results.read_text())
    card = render(
        PawnDetector.load(arguments.detector), Calibration.load(arguments.detector), results, arguments.recipe
    )
    write_bytes(arguments.detector / "README.md", card.encode())


def render(detector: PawnDetector, calibration: Calibration, results: list[dict[str, Any]], recipe: str) -> str:
    """The card: the template `model_card.md` with every figure filled in from what was measured."""
    training = detector.card.training
    config = training["config"]
    shipped = {"detector": "PAWN", "seed": config["seed"]}
    rows = [
        {"protocol": "in-domain", "held_out": "nothing"} | shipped | training["test"],
        *({"protocol": "domain"} | shipped | row for row in training["left_out_domains"]),
        *(row | {"detector": "PAWN"} for row in results if row["detector"] == recipe),
        *(row for row in results if row["detector"] in ZERO_SHOT),
    ]
    order = ["in-domain", "corpus", "domain", "generator"]
    rows.sort(key=lambda row: (order.index(row["protocol"]), row["held_out"]))  # stable: PAWN stays first
    return CARD.read_text().format(
        name=detector.name,
        backbone=detector.card.backbone["name"],
        codec=detector.card.backbone["codec"],
        dtype=detector.card.backbone["fingerprint"]["dtype"],
        max_length=detector.card.backbone["fingerprint"]["max_length"],
        weights=detector.weights_sha256(),
        parameters=f"{sum(parameter.numel() for parameter in detector.network.parameters()):,}",
        corpora="\n".join(f"- `{corpus['file']}`, SHA-256 `{corpus['sha256']}`" for corpus in training["corpora"]),
        texts=", ".join(f"{count:,} {part}" for part, count in training["texts"].items()),
        max_epochs=config["epochs"],
        epochs=len(training["epochs"]),
        best=next(epoch["epoch"] for epoch in reversed(training["epochs"]) if epoch["best"]),
        config=json.dumps(config, sort_keys=True),
        calibration=f"{len(calibration.scores):,}",
        calibration_texts=calibration.provenance["texts"],
        smallest_fpr=f"{calibration.smallest_fpr:.2%}",
        table=table(rows),
    )


if __name__ == "__main__":
    main()
