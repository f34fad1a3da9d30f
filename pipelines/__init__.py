"""What a person runs: the command line, corpora in and out, and the scorer behind both."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.scoring import Scorer, ScoringSettings

__all__ = ["Scorer", "ScoringSettings"]


def __getattr__(name: str) -> object:
    """`from pipelines import Scorer` without making `pawn --help` import torch."""
    if name in __all__:
        from pipelines import scoring

        return getattr(scoring, name)
    raise AttributeError(f"module 'pipelines' has no attribute {name!r}")
