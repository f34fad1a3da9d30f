"""Fitting PAWN on cached features: the loop, its recipe and its record."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from cache.loader import CachedCorpus, LabelledCorpus, Transform
from detect.measures import auroc
from detect.pawn_network import LOG_PROB, Pawn, collate
from detect.pawn_scoring import Precision, corpus_scores
from detect.trained import Progress, silent
from features.backbone import native_dtype
from features.documents import MIN_TOKENS
from features.errors import DetectorError
from features.memory import prepare_memory
from features.token_features import METRIC_NAMES, TokenFeatures


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """The recipe. Defaults are the paper's (arXiv 2501.03940) but for what says otherwise.

    Attributes:
        epochs: passes over the data at most; the paper has 5 on 319,000 texts, small corpora need more.
        batch_size: documents in a batch at most.
        token_budget: padded tokens in a batch at most.
        learning_rate: AdamW's, under a cosine schedule without warm-up.
        weight_decay: AdamW's.
        gradient_clip: largest norm of the gradient.
        label_smoothing: targets are y (1 - s) + s / 2.
        class_weight: weight of machine texts; "balanced" gives both classes the same total.
        token_dropout: share of positions that no gate may look at.
        crop_probability: share of texts cut to a random prefix, anew in each epoch. Not in the paper: a
            causal model's features of a prefix are a prefix of its features, so cuts are free, and detectors
            trained on them keep their accuracy on short texts and unseen corpora.
        min_crop: shortest prefix in tokens.
        max_tokens: longer texts are cut to this many tokens in training; None: as cached.
        patience: epochs without a better validation AUROC before training stops.
        seed: of initialisation, order, crops and dropout.
        precision: "bfloat16" or "float32", of the matrix products.
        likelihood_weight: how much of the standardised mean log-likelihood is added to the logit (see `Pawn`). Not
            in the paper: 0 is the paper.
        mix_layers: whether the layers of features that hold several are mixed into one (see `Pawn`); else the network
            reads them side by side.
        network: arguments of `Pawn` beside its sizes and what is named above.
    """

    epochs: int = 10
    batch_size: int = 64
    token_budget: int = 32_768
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    label_smoothing: float = 0.2
    class_weight: float | str = "balanced"
    token_dropout: float = 0.15
    crop_probability: float = 0.5
    min_crop: int = MIN_TOKENS
    max_tokens: int | None = None
    patience: int = 3
    seed: int = 0
    precision: Precision = "float32"
    likelihood_weight: float = 0.5
    mix_layers: bool = False
    network: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises ValueError naming the first setting that cannot be."""
        shares = {
            "label_smoothing": self.label_smoothing,
            "token_dropout": self.token_dropout,
        }
        for name, share in shares.items():
            if not 0 <= share < 1:
                raise ValueError(f"{name} is a share: expected 0 <= {name} < 1, got {share}")
        if not 0 <= self.crop_probability <= 1:
            raise ValueError(f"expected 0 <= crop_probability <= 1, got {self.crop_probability}")
        if self.epochs < 1 or self.batch_size < 1 or self.patience < 1:
            raise ValueError(
                f"expected at least 1 of each, got epochs {self.epochs}, batch_size {self.batch_size}, "
                f"patience {self.patience}"
            )
        for name in ("token_budget", "learning_rate", "gradient_clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"expected {name} above 0, got {getattr(self, name)}")
        if self.min_crop < 2 or (self.max_tokens is not None and self.max_tokens < 2):
            raise ValueError(
                f"a text of one token predicts nothing: expected at least 2 for min_crop and max_tokens, got "
                f"{self.min_crop} and {self.max_tokens}"
            )
        if self.class_weight != "balanced" and not isinstance(self.class_weight, int | float):
            raise ValueError(f'class_weight is a number or "balanced", got {self.class_weight!r}')
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f'precision is "float32" or "bfloat16", got {self.precision!r}')


RECIPES: dict[str, dict[str, Any]] = {
    "pawn": {},
    "pawn-paper": {"crop_probability": 0.0, "likelihood_weight": 0.0},
    "pawn-no-hidden": {"likelihood_weight": 0.0, "network": {"use_hidden": False}},
    "pawn-no-metrics": {"likelihood_weight": 0.0, "network": {"use_metrics": False}},
    "pawn-layers": {"mix_layers": True},
}
"""The PAWN detectors by name: what each settles in the recipe, whatever else is asked for."""


def recipe(name: str, *, seed: int = 0, **settings: Any) -> TrainingConfig:
    """The recipe of one of `RECIPES`, with other settings of `TrainingConfig` as given.

    Matrix products are as fast as the processor has them, unless `precision` is given.

    Raises:
        ValueError: when a setting cannot be, or is one that the name has settled.
    """
    if settled := sorted(RECIPES[name].keys() & settings.keys()):
        raise ValueError(f"{name} settles {', '.join(settled)}; train 'pawn' to choose")
    return replace(TrainingConfig(seed=seed, precision=training_precision()), **settings, **RECIPES[name])


def training_precision() -> Precision:
    """bfloat16 products where the processor has them: twice as fast, and no AUROC lost that we could measure."""
    return "bfloat16" if native_dtype("cpu") is torch.bfloat16 else "float32"


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch gave."""

    epoch: int
    loss: float
    validation_auroc: float
    best: bool


def fit_pawn(
    network: Pawn,
    train: LabelledCorpus,
    validation: LabelledCorpus,
    config: TrainingConfig,
    progress: Progress = silent,
) -> list[EpochRecord]:
    """Train a network in place and leave it at its best epoch by validation AUROC.

    Args:
        network: freshly initialised; its standardisation is set from the training documents.
        train: learnt from.
        validation: judged on after each epoch.
        config: the recipe.
        progress: told of each step and epoch.

    Returns:
        One record per epoch run.
    """
    rng = np.random.default_rng(config.seed)
    prepare_memory()
    generator = torch.Generator().manual_seed(config.seed)
    moments = _moments(train.corpus, rng)
    if not network.arguments["use_hidden"]:  # and so perhaps none were read
        moments |= {"hidden_mean": network.hidden_mean, "hidden_std": network.hidden_std}
    network.set_standardisation(**moments)
    optimiser = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    weights = class_weights(train.labels, config.class_weight)
    records: list[EpochRecord] = []
    best_state: dict[str, torch.Tensor] = {}
    for epoch in range(1, config.epochs + 1):
        loss = _epoch(network, train, config, epoch, rng, generator, optimiser, weights, progress)
        scores = corpus_scores(network, validation.corpus, precision=config.precision)
        if not np.isfinite(scores).all():
            raise DetectorError(
                f"the training diverged in epoch {epoch}: its scores are no numbers any more; ask for a learning_rate "
                f"below {config.learning_rate:g}"
            )
        found = auroc(validation.labels, scores)
        better = all(found > record.validation_auroc for record in records)
        if better:
            best_state = {name: value.clone() for name, value in network.state_dict().items()}
        records.append(EpochRecord(epoch, loss, found, better))
        progress("epoch", {"epoch": epoch, "loss": loss, "validation_auroc": found})
        if epoch - max(r.epoch for r in records if r.best) >= config.patience:
            break
    network.load_state_dict(best_state)
    network.eval()
    return records


def new_network(config: TrainingConfig, *, hidden_size: int, layers: int = 1) -> Pawn:
    """A freshly initialised network; the seed decides its weights and nothing else of the process changes.

    `layers` is how many `hidden_size` is made of.
    """
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        return Pawn(
            hidden_size=hidden_size,
            metric_count=len(METRIC_NAMES),
            token_dropout=config.token_dropout,
            likelihood_weight=config.likelihood_weight,
            layers=layers if config.mix_layers else 1,
            **config.network,
        )


def crop_transform(config: TrainingConfig) -> Transform:
    """Cut a document to `max_tokens`, and with `crop_probability` to a uniformly random prefix of it."""

    def crop(features: TokenFeatures, rng: np.random.Generator) -> TokenFeatures:
        longest = min(features.n_tokens, config.max_tokens or features.n_tokens)
        keep = longest
        if rng.random() < config.crop_probability and longest > config.min_crop:
            keep = int(rng.integers(config.min_crop, longest + 1))
        return features if keep == features.n_tokens else features.prefix(keep)

    return crop


def _epoch(
    network: Pawn,
    train: LabelledCorpus,
    config: TrainingConfig,
    epoch: int,
    rng: np.random.Generator,
    generator: torch.Generator,
    optimiser: torch.optim.Optimizer,
    weights: tuple[float, float],
    progress: Progress,
) -> float:
    """One pass over the training documents; returns their mean loss."""
    network.train()
    total = len(train.corpus)
    seen, loss_sum = 0, 0.0
    for batch in train.corpus.epoch(
        rng,
        batch_size=config.batch_size,
        token_budget=config.token_budget,
        transform=crop_transform(config),
    ):
        done = (epoch - 1 + seen / total) / config.epochs
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
        labels = torch.from_numpy(train.labels[batch.indices]).float()  # (batch,)
        hidden, metrics, mask = collate(batch.features)
        with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bfloat16"):
            logits = network(hidden, metrics, mask, generator=generator)  # (batch,)
        loss = smoothed_loss(logits.float(), labels, config.label_smoothing, weights)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), config.gradient_clip)
        optimiser.step()
        seen += len(labels)
        loss_sum += float(loss.detach()) * len(labels)
        step = {"epoch": epoch, "epochs": config.epochs, "documents": seen, "total": total}
        progress("step", step | {"loss": loss_sum / seen})
    return loss_sum / seen


def smoothed_loss(
    logits: torch.Tensor, labels: torch.Tensor, smoothing: float, weights: Sequence[float]
) -> torch.Tensor:
    """Mean binary cross-entropy with smoothed targets and (human, machine) class weights; (batch,) -> ()."""
    targets = labels * (1 - smoothing) + smoothing / 2
    losses = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (losses * torch.where(labels > 0.5, weights[1], weights[0])).mean()


def class_weights(labels: np.ndarray, class_weight: float | str) -> tuple[float, float]:
    """(human, machine) weights; "balanced" gives both classes the same total."""
    if class_weight == "balanced":
        share = float(labels.mean())
        return 0.5 / (1 - share), 0.5 / share
    return 1.0, float(class_weight)


def _moments(corpus: CachedCorpus, rng: np.random.Generator, documents: int = 512) -> dict[str, torch.Tensor]:
    """What `set_standardisation` wants: mean and deviation of metrics, hidden states and document likelihoods."""
    sums: dict[str, list[np.ndarray]] = {"metric": [], "hidden": []}
    likelihoods: list[float] = []
    count = 0
    for batch in corpus.epoch(rng, batch_size=64, token_budget=TrainingConfig.token_budget):
        for features in batch.features:
            for name, values in (("metric", features.metrics), ("hidden", features.hidden[:-1])):
                exact = torch.from_numpy(values.astype(np.float32))  # float32 within a document, float64 over documents
                sums[name].append(torch.stack([exact.sum(0), exact.square().sum(0)]).double().numpy())  # (2, columns)
            count += len(features.metrics)
            likelihoods.append(float(features.metrics[:, LOG_PROB].mean()))
        if len(likelihoods) >= documents:
            break
    found = {"likelihood": (np.array([np.mean(likelihoods)]), np.array([np.std(likelihoods)]))}
    for name, parts in sums.items():
        mean, square = np.sum(parts, axis=0) / count
        found[name] = mean, np.sqrt(np.maximum(square - mean**2, 0))
    moments = {}
    for name, (mean, deviation) in found.items():
        moments[f"{name}_mean"] = torch.from_numpy(mean).float()
        # A constant column stays where it is.
        moments[f"{name}_std"] = torch.from_numpy(np.where(deviation > 0, deviation, 1)).float()
    return moments


def training_record(config: TrainingConfig, records: Sequence[EpochRecord]) -> dict[str, object]:
    """What a saved detector says of its training, JSON-able."""
    return {"config": asdict(config), "epochs": [asdict(record) for record in records]}
