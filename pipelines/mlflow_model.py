"""A detector as MLflow serves it: the script of a logged model, run by MLflow and imported by nothing else.

MLflow keeps this file and the detector's folder (models from code), so nothing is pickled. A column `text` comes in;
for each row score, p_value, is_machine and status go out.
"""

from typing import Any

import pandas
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

COLUMNS = ["score", "p_value", "is_machine", "status"]


class ServedDetector(PythonModel):
    """Scores texts as `pawn score` does, at its default rate of false positives."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load detector and language model, once, before the first request."""
        from pipelines.scoring import Scorer, ScoringSettings

        settings = context.model_config or {}  # MLflow gives None for a model that was logged without settings
        self.scorer = Scorer.load(ScoringSettings(detector=context.artifacts["detector"], **settings))

    def predict(
        self, context: PythonModelContext, model_input: pandas.DataFrame, params: dict[str, Any] | None = None
    ) -> pandas.DataFrame:
        """One row for each row of the input, in order; None where a text has no score."""
        # pandas has not-a-number where JSON had null.
        texts = [text if isinstance(text, str) else None for text in model_input["text"]]
        rows = self.scorer.score(texts).select(COLUMNS).to_dicts()
        return pandas.DataFrame(rows, columns=COLUMNS, dtype=object)  # object keeps None, which JSON has as null


set_model(ServedDetector())
