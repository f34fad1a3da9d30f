"""The PAWN detector: the network of `detect/pawn_network.py` with its card, on disk and at work."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError

from cache.loader import LabelledCorpus
from detect.pawn_network import Pawn
from detect.pawn_scoring import TOKEN_BUDGET, Precision, check_precision, score_network
from detect.protocol import CARD_FILE, read_bytes, read_card, write_bytes, write_card
from detect.training import Progress, TrainingConfig, fit_pawn, training_record
from features.errors import DetectorError
from features.metrics import METRIC_VERSION
from features.token_features import METRIC_NAMES, TokenFeatures

KIND = "pawn"
WEIGHTS_FILE = "model.safetensors"

WeightsDtype = Literal["float32", "float16"]


@dataclass(frozen=True, kw_only=True)
class DetectorCard:
    """What is known of a PAWN detector beside its weights; all of it JSON-able.

    Raises:
        ValueError: when the name is empty.
    """

    name: str
    backbone: dict[str, Any]  # identity of the language model that made the features
    metric_names: tuple[str, ...] = METRIC_NAMES
    metric_version: int = METRIC_VERSION
    training: dict[str, Any] = field(default_factory=dict)
    calibration: str | None = None  # file name of the human scores, in the same directory

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a detector needs a name, got ''")
        object.__setattr__(self, "metric_names", tuple(self.metric_names))


class PawnDetector:
    """A trained PAWN network with its card. Scores are logits; higher is more machine-like.

    Args:
        network: on the device that it will run on.
        card: what it was made from.
        precision: "float32", or "bfloat16" autocast.
        token_budget: most tokens in a batch, padding counted.

    Raises:
        UsageError: when the precision is neither.
        ValueError: when the network reads another number of metrics than the card names.
    """

    def __init__(
        self,
        network: Pawn,
        card: DetectorCard,
        *,
        precision: Precision = "float32",
        token_budget: int = TOKEN_BUDGET,
    ) -> None:
        check_precision(precision)
        if (count := network.arguments["metric_count"]) != len(card.metric_names):
            raise ValueError(f"the network reads {count} metrics, the card names {len(card.metric_names)}")
        self.network = network.eval()
        self.card = card
        self.precision = precision
        self.token_budget = token_budget
        self._stored_dtype: WeightsDtype = "float32"

    @property
    def name(self) -> str:
        """What a person calls it."""
        return self.card.name

    def fit(
        self,
        train: LabelledCorpus,
        validation: LabelledCorpus,
        config: TrainingConfig | None = None,
        progress: Progress = lambda event, values: None,
    ) -> Self:
        """Train the network in place and leave it at its best epoch; the card records recipe and epochs."""
        config = config or TrainingConfig()
        records = fit_pawn(self.network, train, validation, config, progress)
        self.card = replace(self.card, training=self.card.training | training_record(config, records))
        return self

    def score(self, features: Sequence[TokenFeatures]) -> np.ndarray:
        """Logits (n_docs,) float64, in the order given.

        Raises:
            DetectorError: when the features have another hidden size or number of metrics.
            ValueError: when a document has no scored token.
        """
        for document in features:
            self._check_fits(document)
        return score_network(self.network, features, precision=self.precision, token_budget=self.token_budget)

    def save(self, directory: Path, dtype: WeightsDtype | None = None) -> None:
        """Write `model.safetensors` and, last, `detector.json` with the hash of the weights.

        Args:
            directory: made when missing.
            dtype: of the weights on disk; float16 halves the file. Standardisation stays float32. Default:
                what the file it was loaded from had, float32 for a new detector.
        """
        dtype = dtype or self._stored_dtype
        content = self._weights(dtype)
        write_bytes(directory / WEIGHTS_FILE, content)
        weights = {"file": WEIGHTS_FILE, "dtype": dtype, "sha256": hashlib.sha256(content).hexdigest()}
        write_card(directory, KIND, {**asdict(self.card), "network": self.network.arguments, "weights": weights})

    def weights_sha256(self, dtype: WeightsDtype | None = None) -> str:
        """Hash of the weights file that `save` writes with this dtype; by default that of the file loaded."""
        return hashlib.sha256(self._weights(dtype or self._stored_dtype)).hexdigest()

    @classmethod
    def load(
        cls, directory: Path, *, precision: Precision = "float32", token_budget: int = TOKEN_BUDGET
    ) -> "PawnDetector":
        """Read what `save` wrote, onto the CPU.

        Raises:
            DetectorError: when a file is missing, the kind or format version is unknown, the weights are not
                those that the card was written for, or do not fit the network that it describes.
        """
        record = read_card(directory, KIND)
        content = read_bytes(directory / WEIGHTS_FILE)
        source = directory / CARD_FILE
        try:
            expected, stored_dtype = record["weights"]["sha256"], record["weights"]["dtype"]
            if stored_dtype not in get_args(WeightsDtype):
                raise ValueError(f"unknown weights dtype {stored_dtype!r}")
            card = DetectorCard(**{name: record[name] for name in DetectorCard.__dataclass_fields__})
            network = Pawn(**record["network"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:  # RuntimeError: torch, sizes
            raise DetectorError(f"{source} does not describe a PAWN detector ({error!r})") from error
        _check_metrics(card, source)
        if (found := hashlib.sha256(content).hexdigest()) != expected:
            raise DetectorError(
                f"{directory / WEIGHTS_FILE} has SHA-256 {found}, {CARD_FILE} says {expected}: one of the "
                "two is damaged or from another detector; fetch or train the detector again"
            )
        _load_weights(network, content, directory / WEIGHTS_FILE)
        detector = cls(network, card, precision=precision, token_budget=token_budget)
        detector._stored_dtype = stored_dtype
        return detector

    def _weights(self, dtype: WeightsDtype) -> bytes:
        parameters = {name for name, _ in self.network.named_parameters()}
        return safetensors.torch.save(
            {
                name: tensor.detach().cpu().to(getattr(torch, dtype) if name in parameters else torch.float32)
                for name, tensor in self.network.state_dict().items()
            }
        )

    def _check_fits(self, document: TokenFeatures) -> None:
        expected = self.network.arguments
        hidden_size, metric_count = document.hidden.shape[1], document.metrics.shape[1]
        if expected["use_hidden"] and hidden_size != expected["hidden_size"]:
            raise DetectorError(
                f"detector {self.name} reads hidden states of size {expected['hidden_size']}, the features "
                f"have {hidden_size}; extract them with the backbone {self.card.backbone}"
            )
        if metric_count != expected["metric_count"]:
            raise DetectorError(
                f"detector {self.name} reads {expected['metric_count']} metrics a token, the features have "
                f"{metric_count}; extract them with this version"
            )


def _check_metrics(card: DetectorCard, source: Path) -> None:
    found, expected = (card.metric_names, card.metric_version), (METRIC_NAMES, METRIC_VERSION)
    if found != expected:
        raise DetectorError(
            f"{source} was trained on metrics {', '.join(found[0])} (version {found[1]}), this program "
            f"computes {', '.join(expected[0])} (version {expected[1]}); train it again"
        )


def _load_weights(network: Pawn, content: bytes, source: Path) -> None:
    try:
        tensors = safetensors.torch.load(content)
    except SafetensorError as error:
        raise DetectorError(f"{source} is not a safetensors file ({error})") from error
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name, tensor in network.state_dict().items():
        if found.pop(name, None) != tuple(tensor.shape):
            shape = tuple(tensors[name].shape) if name in tensors else "missing"
            raise DetectorError(f"{source}: {name} is {shape}, the card's network needs {tuple(tensor.shape)}")
    if found:
        raise DetectorError(f"{source} holds {', '.join(sorted(found))}, which the card's network lacks")
    network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
