"""Every detector by name, what it costs and where it comes from; names and folders -> detectors.

This module imports no other at the top that is heavy, so that lists and help texts are instant.
"""

import json
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.errors import DetectorError, UsageError

if TYPE_CHECKING:
    from detect.calibrated import CalibratedDetector
    from detect.protocol import Detector, TextDetector
    from detect.trained import DetectorCard, TrainableDetector

PRETRAINED = Path(__file__).parent / "pretrained"
DEFAULT_DETECTOR = "pawn-smollm2-135m"
DEFAULT_BACKBONE = "smollm2-135m"

METRICS = "metrics"
STATES = "metrics and hidden states"
HIDDEN = "hidden states"
TEXT = "text"
LAYERS = "metrics and hidden states of several layers"
TWO_MODELS = "metrics of two models"


@dataclass(frozen=True)
class CatalogEntry:
    """One line of `pawn detectors`.

    Attributes:
        name: what a person calls it.
        kind: "zero-shot", "zero-shot-pair" (of two language models), or what `detector.json` of a trained one says.
        reads: what it needs of each text: cached metrics, hidden states, both, or more of either; or the text itself.
        source: paper, and its arXiv number.
        summary: one line.
        trainable: whether `pawn train NAME` makes one; else it is ready for use.
    """

    name: str
    kind: str
    reads: str
    source: str
    summary: str
    trainable: bool = False

    @property
    def cost(self) -> str:
        """What a person must spend to use it."""
        return f"{self.reads}; training" if self.trainable else self.reads


GLTR = "Gehrmann et al. 2019, 1906.04043"
DETECTGPT = "Mitchell et al. 2023, 2301.11305"
PAWN = "Miralles-González et al. 2025, 2501.03940"

ENTRIES = (
    CatalogEntry("log-likelihood", "zero-shot", METRICS, "Solaiman et al. 2019, 1908.09203", "mean log-probability"),
    CatalogEntry("rank", "zero-shot", METRICS, DETECTGPT, "minus the mean rank"),
    CatalogEntry("log-rank", "zero-shot", METRICS, DETECTGPT, "minus the mean log rank"),
    CatalogEntry("entropy", "zero-shot", METRICS, DETECTGPT, "minus the mean entropy of the model's predictions"),
    CatalogEntry("lrr", "zero-shot", METRICS, "Su et al. 2023, 2306.05540", "log-likelihood over log-rank"),
    CatalogEntry("gltr", "zero-shot", METRICS, GLTR, "share of tokens among the ten likeliest"),
    CatalogEntry(
        "fast-detect-gpt", "zero-shot", METRICS, "Bao et al. 2023, 2310.05130", "curvature of the log-probability"
    ),
    CatalogEntry(
        "lastde", "zero-shot", METRICS, "Xu et al. 2025, 2410.06072", "log-likelihood over its fluctuation at 5 scales"
    ),
    CatalogEntry(
        "binoculars",
        "zero-shot-pair",
        TWO_MODELS,
        "Hans et al. 2024, 2401.12070",
        "log-perplexity over what an --observer expects of it",
    ),
    CatalogEntry(
        "fast-detect-gpt-2",
        "zero-shot-pair",
        TWO_MODELS,
        "Bao et al. 2023, 2310.05130",
        "curvature under what an --observer predicts",
    ),
    CatalogEntry("pawn", "pawn", STATES, PAWN, "network that weighs metrics by hidden states, our recipe", True),
    CatalogEntry("pawn-paper", "pawn", STATES, PAWN, "the same without random prefixes and added likelihood", True),
    CatalogEntry("pawn-no-hidden", "pawn", METRICS, PAWN, "ablation: metrics weighed by metrics", True),
    CatalogEntry("pawn-no-metrics", "pawn", HIDDEN, PAWN, "ablation: hidden states weighed by hidden states", True),
    CatalogEntry("pawn-layers", "pawn", LAYERS, PAWN, "gates read a learnt mix of layers; ELMo's, 1802.05365", True),
    CatalogEntry("lightgbm", "boosted", METRICS, "Ke et al. 2017, LightGBM", "trees on pooled metrics", True),
    CatalogEntry("profile", "boosted", METRICS, "ours", "trees on how metrics relate, run on, and follow tokens", True),
    CatalogEntry(
        "diveye", "boosted", METRICS, "Basani & Chen 2025, 2509.18880", "trees on ten features of surprisal", True
    ),
    CatalogEntry(
        "gltr-buckets", "linear", METRICS, GLTR, "logistic regression on the shares of four rank buckets", True
    ),
    CatalogEntry("logistic", "linear", HIDDEN, "textbook", "logistic regression on mean hidden states", True),
    CatalogEntry(
        "bilinear", "linear", STATES, "ours", "linear in hidden states' means and covariances with metrics", True
    ),
    CatalogEntry(
        "covariance", "linear", STATES, "ours", "the same of more metrics, penalised until domains hardly differ", True
    ),
    CatalogEntry("pawn-ensemble", "ensemble", STATES, PAWN, "profile, covariance, PAWN and three more: our best", True),
    CatalogEntry("ensemble", "ensemble", "what its members read", "Wolpert 1992", "any of the others, weighed", True),
    CatalogEntry(
        "tfidf", "tfidf", TEXT, "Solaiman et al. 2019, 1908.09203", "logistic regression on words and characters", True
    ),
    CatalogEntry("encoder", "encoder", TEXT, "Devlin et al. 2019, 1810.04805", "an encoder fine-tuned whole", True),
    CatalogEntry("lora", "lora", TEXT, "Li et al. 2023, 2310.01208", "a language model with adapters and a head", True),
)
"""Every detector with a name but those that ship, which `catalog` finds."""

KINDS = {
    "zero-shot": "detect.zero_shot:load_zero_shot",
    "zero-shot-pair": "detect.two_models:load_two_models",
    "pawn": "detect.pawn:PawnDetector.load",
    "boosted": "detect.boosted:BoostedDetector.load",
    "linear": "detect.linear:LinearDetector.load",
    "ensemble": "detect.ensemble:EnsembleDetector.load",
    "tfidf": "detect.tfidf:TfidfDetector.load",
    "encoder": "detect.finetuned:FineTunedEncoder.load",
    "lora": "detect.lora:LabelSupervisedLM.load",
    "text-member": "detect.text_member:TextMember.load",
}
"""What reads a folder whose `detector.json` is of a kind. Cards name kinds only: data never names code to import."""

_TAKES: dict[str, Set[str]] = {
    "encoder": {"device"},
    **{kind: {"device", "say"} for kind in ("lora", "ensemble", "text-member")},
}
"""What the readers of some kinds take beside the folder."""


def catalog() -> list[CatalogEntry]:
    """Every detector that has a name: those that ship, then those that need no training, then those that do."""
    shipped = [
        CatalogEntry(
            folder.name,
            json.loads((folder / "detector.json").read_bytes())["kind"],
            STATES,
            PAWN,
            "trained and calibrated; ships with this version",
        )
        for folder in sorted(PRETRAINED.iterdir())
        if (folder / "detector.json").is_file()
    ]
    return shipped + list(ENTRIES)


def trainable_names() -> list[str]:
    """What `pawn train` can make, in the order of the catalog."""
    return [entry.name for entry in ENTRIES if entry.trainable]


def reads(what: str, name: str, settings: Mapping[str, Any]) -> bool:
    """Whether a detector of a recipe, or a member of it, is one that an entry says reads this, such as `LAYERS`."""
    names = (name, *settings.get("members", ()))
    return any(entry.reads == what for entry in ENTRIES if entry.name in names)


def text_names() -> list[str]:
    """Trainable ones that read texts themselves, in the order of the catalog; `detect.text_recipes` makes them."""
    return [entry.name for entry in ENTRIES if entry.reads == TEXT]


def zero_shot_names() -> list[str]:
    """Those that need no training and one language model, in the order of the catalog."""
    return [entry.name for entry in ENTRIES if entry.kind == "zero-shot"]


def untrained_names() -> list[str]:
    """Those ready for use by name: `zero_shot_names`, and those of two language models."""
    return [entry.name for entry in ENTRIES if not entry.trainable]


def untrained(name: str) -> "Detector":
    """A detector of `untrained_names`."""
    from detect.two_models import TWO_MODELS as PAIRED
    from detect.zero_shot import ZERO_SHOT

    return (ZERO_SHOT | PAIRED)[name]()


def load_detector(
    name: str = DEFAULT_DETECTOR, *, device: str | None = None, say: Callable[[str], None] | None = None
) -> "CalibratedDetector":
    """The detector of a name, of a folder, or of a class `module:Class` of one's own.

    Args:
        name: of any of these.
        device: for a detector that is a transformer: "cpu" or "cuda"; default: cuda when there is one.
        say: told of the download of a base model.

    Raises:
        UsageError: when nothing has that name, or what has it must be trained first.
        DetectorError: when the folder holds no sound detector, or the class is none.
    """
    if name in trainable_names() and not Path(name).is_dir():
        raise UsageError(
            f"detector {name} must be trained first: 'pawn train {name} --data LABELLED -o DIR', then give DIR"
        )
    if name in untrained_names():
        kind = next(entry.kind for entry in ENTRIES if entry.name == name)
        return _uncalibrated(untrained(name), {"name": name, "kind": kind})
    folder = PRETRAINED / name if (PRETRAINED / name / "detector.json").is_file() else Path(name)
    if folder.is_dir():
        return _from_folder(folder, device=device, say=say)
    if ":" in name:
        from detect.own import own_detector, source_sha256

        detector = own_detector(name)
        identity = {"name": detector.name, "kind": "own", "class": name, "source_sha256": source_sha256(detector)}
        return _uncalibrated(detector, identity)
    names = [entry.name for entry in catalog()]
    close = get_close_matches(name, names, n=1)
    raise UsageError(
        f"no detector named {name!r} and no such folder"
        + (f"; did you mean {close[0]}?" if close else "")
        + f" Known: {', '.join(names)}. 'pawn train NAME' writes folders; module:Class is a class of your own."
    )


def new_detector(
    name: str, *, hidden_size: int, seed: int = 0, card: "DetectorCard | None" = None, **settings: Any
) -> "TrainableDetector":
    """An unfitted detector by name, for `fit`.

    Args:
        name: one of `trainable_names`, but for those that read texts (`detect.text_recipes.text_recipe`).
        hidden_size: of the language model whose features it will read.
        seed: of everything random in its training.
        card: what it is to remember of itself beside the hidden size; default: the name.
        settings: of the recipe of its kind (`TrainingConfig`, `BoostingConfig`, `LinearConfig`, `EnsembleConfig`).

    Raises:
        UsageError: when no trainable detector has that name, or a setting cannot be.
    """
    from detect.trained import DetectorCard

    card = card or DetectorCard(name=name, backbone={})
    return maker(name, seed=seed, **settings)(replace(card, backbone=card.backbone | {"hidden_size": hidden_size}))


def maker(name: str, *, seed: int = 0, **settings: Any) -> "Callable[[DetectorCard], TrainableDetector]":
    """What makes unfitted detectors of a name and a recipe, one for each card; the recipe is checked now.

    The arguments and errors are those of `new_detector`.
    """
    if name in text_names():
        raise UsageError(
            f"detector {name} reads the text itself and learns from no features: 'pawn train {name}' makes one, and "
            "'pawn train ensemble' one beside others"
        )
    kinds = {entry.name: entry.kind for entry in ENTRIES if entry.trainable and entry.reads != TEXT}
    if name not in kinds:
        raise UsageError(f"no detector named {name!r} can be trained; expected one of {', '.join(kinds)}")
    try:
        return _MAKERS[kinds[name]](name, seed, settings)
    except (TypeError, ValueError) as error:
        raise UsageError(f"detector {name} cannot be trained like that: {error}") from error


def _pawn(name: str, seed: int, settings: Mapping[str, Any]) -> "Callable[[DetectorCard], TrainableDetector]":
    from detect.pawn import PawnDetector
    from detect.training import recipe

    config = recipe(name, seed=seed, **settings)
    return lambda card: PawnDetector.new(card, config)


def _boosted(name: str, seed: int, settings: Mapping[str, Any]) -> "Callable[[DetectorCard], TrainableDetector]":
    from detect.boosted import BoostedDetector, recipe

    config = recipe(name, seed=seed, **settings)
    return lambda card: BoostedDetector.new(card, name, config)


def _linear(name: str, seed: int, settings: Mapping[str, Any]) -> "Callable[[DetectorCard], TrainableDetector]":
    from detect.linear import LinearDetector, recipe

    config = recipe(name, seed=seed, **settings)
    return lambda card: LinearDetector.new(card, name, config)


def _ensemble(name: str, seed: int, settings: Mapping[str, Any]) -> "Callable[[DetectorCard], TrainableDetector]":
    from detect.ensemble import EnsembleDetector, member_maker
    from detect.ensemble_recipe import recipe

    config = recipe(name, seed=seed, **settings)
    for member in config.members:
        member_maker(member, config)  # refused now, not when the first is fitted
    return lambda card: EnsembleDetector.new(card, config)


_MAKERS = {"pawn": _pawn, "boosted": _boosted, "linear": _linear, "ensemble": _ensemble}


def read_detector(folder: Path, **options: Any) -> "Detector | TextDetector":
    """The detector in a folder, by the kind that its card names, without calibration.

    Args:
        folder: what it was saved to.
        options: `device` and `say` of `load_detector`, for the kinds that know them.

    Raises:
        DetectorError: when the kind is unknown or the folder holds no sound detector of it.
    """
    from detect.protocol import CARD_FILE, read_card

    kind = read_card(folder).get("kind")
    if kind not in KINDS:
        raise DetectorError(
            f"{folder / CARD_FILE} describes a detector of kind {kind!r}, expected one of {', '.join(KINDS)}; "
            "a detector of your own is named module:Class"
        )
    module, _, path = KINDS[kind].partition(":")
    reader: Any = import_module(module)
    for attribute in path.split("."):
        reader = getattr(reader, attribute)
    known = {name: value for name, value in options.items() if name in _TAKES.get(kind, ())}
    detector: Detector | TextDetector = reader(folder, **known)
    return detector


def _from_folder(folder: Path, **options: Any) -> "CalibratedDetector":
    from cache.codec import FLOAT16
    from cache.codec_catalog import codec_in
    from detect.calibrated import CalibratedDetector
    from detect.calibration import PROVENANCE_FILE, Calibration
    from detect.protocol import read_card, reads_text
    from detect.trained import TrainableDetector, TrainableTextDetector

    detector = read_detector(folder, **options)
    calibration = Calibration.load(folder) if (folder / PROVENANCE_FILE).is_file() else None
    identity: dict[str, Any] = {"name": detector.name, "kind": read_card(folder)["kind"]}
    backbone: dict[str, Any] = {}
    if reads_text(detector):
        assert isinstance(detector, TrainableTextDetector)  # as every kind of them is
        identity["weights_sha256"] = detector.weights_sha256()
    elif isinstance(detector, TrainableDetector):
        identity["weights_sha256"] = detector.weights_sha256()
        backbone = detector.card.backbone
    identity["calibration_scores"] = None if calibration is None else len(calibration.scores)
    return CalibratedDetector(
        detector=detector,
        calibration=calibration,
        backbone="" if reads_text(detector) else backbone.get("name", DEFAULT_BACKBONE),
        fingerprint=backbone.get("fingerprint", {}),
        # A trained detector that names no codec is older than codecs.
        codec=codec_in(folder, backbone.get("codec", FLOAT16.name)) if backbone else None,
        identity=identity,
        observer=backbone.get("observer"),
    )


def _uncalibrated(detector: "Detector | TextDetector", identity: dict[str, Any]) -> "CalibratedDetector":
    from detect.calibrated import CalibratedDetector
    from detect.protocol import reads_text

    return CalibratedDetector(detector, None, "" if reads_text(detector) else DEFAULT_BACKBONE, {}, None, identity)
