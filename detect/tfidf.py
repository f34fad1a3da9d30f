"""Which words and character sequences a text has: TF-IDF with logistic regression."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from detect.hashed_files import read_files, write_files
from detect.measures import auroc
from detect.protocol import CARD_FILE, LabelledTexts, read_card, write_card
from detect.text_card import check_text_version
from detect.trained import Progress, silent
from features.documents import TEXT_VERSION, canonical_text
from features.errors import DetectorError

KIND = "tfidf"
VOCABULARY_FILE, WEIGHTS_FILE = "vocabulary.json", "model.safetensors"
FILES = (VOCABULARY_FILE, WEIGHTS_FILE)

ANALYSERS: dict[str, dict[str, Any]] = {
    "words": {"analyzer": "word", "ngram_range": (1, 2), "lowercase": True, "token_pattern": r"(?u)\b\w+\b"},
    "characters": {"analyzer": "char", "ngram_range": (3, 5), "lowercase": False},
}
"""What is counted, in scikit-learn's terms. Case is folded in the words and kept in the characters."""

LONGEST_TEXT = 1_000_000
"""Characters of a text that are read: counting the sequences of a longer one would take gigabytes."""


@dataclass(frozen=True, kw_only=True)
class TfidfConfig:
    """The recipe.

    Attributes:
        vocabulary: most n-grams of each of the two kinds: the most frequent ones.
        least_texts: texts of the sample that an n-gram must be in.
        vocabulary_texts: training texts, drawn at random, whose n-grams are counted to choose the vocabulary: the
            memory of a training follows them, because every n-gram of theirs is held at once.
        regularisations: inverse strengths of the L2 penalty; the one with the best validation AUROC is kept.
        seed: of the sample.
    """

    vocabulary: int = 50_000
    least_texts: int = 2
    vocabulary_texts: int = 20_000
    regularisations: tuple[float, ...] = (1.0, 10.0, 100.0)
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError naming the first setting that cannot be."""
        for name in ("vocabulary", "least_texts", "vocabulary_texts"):
            if (count := getattr(self, name)) < 1:
                raise ValueError(f"expected {name} of at least 1, got {count}")
        if not self.regularisations or min(self.regularisations) <= 0:
            raise ValueError(f"expected regularisations above 0, got {self.regularisations}")


@dataclass(eq=False)
class TfidfModel:
    """What was learnt.

    Attributes:
        vocabulary: n-grams of each kind of `ANALYSERS`, in the order of the columns.
        idf: of each kind, (columns,) float64.
        coefficients: (columns of all kinds in order,) float64.
        intercept: of the regression.

    Raises:
        ValueError: when the parts do not fit one another.
    """

    vocabulary: dict[str, list[str]]
    idf: dict[str, np.ndarray]
    coefficients: np.ndarray
    intercept: float

    def __post_init__(self) -> None:
        for kind in ANALYSERS:
            terms = self.vocabulary[kind]
            if not terms or not all(isinstance(term, str) for term in terms) or len(set(terms)) != len(terms):
                raise ValueError(f"expected a list of distinct n-grams of {kind}")
            if self.idf[kind].shape != (len(terms),):
                raise ValueError(f"expected idf of {len(terms)} {kind}, got shape {self.idf[kind].shape}")
        columns = sum(len(self.vocabulary[kind]) for kind in ANALYSERS)
        if self.coefficients.shape != (columns,):
            raise ValueError(f"expected {columns} coefficients, got shape {self.coefficients.shape}")

    @cached_property
    def _vectoriser(self) -> Any:
        """Canonical texts -> TF-IDF, a sparse (n_texts, columns) float64."""
        from sklearn.pipeline import FeatureUnion  # 0.7 s to import: only when it is used

        parts = {kind: _vectoriser(kind, vocabulary=self.vocabulary[kind]) for kind in ANALYSERS}
        for kind, part in parts.items():
            part.idf_ = self.idf[kind]
        return FeatureUnion(list(parts.items()))

    def score(self, texts: Sequence[str]) -> np.ndarray:
        """Logits (n_texts,) float64."""
        if not len(texts):
            return np.empty(0)
        found: np.ndarray = self._vectoriser.transform(_read(texts)) @ self.coefficients + self.intercept
        return found


class TfidfDetector:
    """TF-IDF of word 1-2-grams and character 3-5-grams with logistic regression.

    The weight of an n-gram in a text is (1 + ln tf) (1 + ln((1 + n) / (1 + df))), tf its count and df how many of the
    n training texts have it. Each kind is scaled to length 1. Scores are the logits of the regression, higher is more
    machine-like. It knows topics and turns of phrase, and is lost where they change.

    The baseline of Solaiman et al. 2019 (arXiv 1908.09203), there of word 1-2-grams alone.

    Args:
        name: what a person calls it.
        model: what was learnt; None before `fit`.
        training: what is known of its training, JSON-able.
    """

    reads: Literal["text"] = "text"

    def __init__(self, name: str, model: TfidfModel | None = None, training: dict[str, Any] | None = None) -> None:
        if not name:
            raise ValueError("a detector needs a name, got ''")
        self._name = name
        self._model = model
        self.training = training or {}

    @property
    def name(self) -> str:
        """What a person calls it."""
        return self._name

    @property
    def model(self) -> TfidfModel:
        """What was learnt; DetectorError before `fit`."""
        if self._model is None:
            raise DetectorError(f"detector {self.name} has learnt nothing yet; fit it, or load one that was saved")
        return self._model

    def fit(
        self,
        train: LabelledTexts,
        validation: LabelledTexts,
        config: TfidfConfig | None = None,
        progress: Progress = silent,
    ) -> Self:
        """Choose the vocabulary, weigh it, and keep the regularisation that does best on the validation texts.

        Raises:
            DetectorError: when no n-gram is in enough texts.
        """
        from scipy.sparse import hstack
        from sklearn.linear_model import LogisticRegression

        config = config or TfidfConfig()
        texts = _read(train.texts)
        vocabulary = _vocabulary(texts, config)
        parts = {kind: _vectoriser(kind, vocabulary=terms) for kind, terms in vocabulary.items()}
        matrix = hstack([part.fit_transform(texts) for part in parts.values()], format="csr")
        idf = {kind: part.idf_ for kind, part in parts.items()}
        judged_texts = _read(validation.texts)
        judged = hstack([part.transform(judged_texts) for part in parts.values()], format="csr")
        tried: dict[float, float] = {}
        for strength in config.regularisations:
            regression = LogisticRegression(C=strength, class_weight="balanced", max_iter=1000)
            regression.fit(matrix, train.labels)
            found = auroc(validation.labels, regression.decision_function(judged))
            if found > max(tried.values(), default=-1.0):
                self._model = TfidfModel(vocabulary, idf, regression.coef_[0], float(regression.intercept_[0]))
            tried[strength] = found
        progress("fitted", {"validation_auroc": max(tried.values())})
        self.training |= {
            "config": asdict(config),
            "validation_auroc": [{"regularisation": strength, "auroc": found} for strength, found in tried.items()],
        }
        return self

    def score(self, texts: Sequence[str]) -> np.ndarray:
        """Logits (n_texts,) float64, in the order given.

        Raises:
            DetectorError: before it learnt anything.
        """
        return self.model.score(texts)

    def save(self, directory: Path) -> None:
        """Write vocabulary and weights, and last the card with their hashes."""
        contents = {
            VOCABULARY_FILE: (json.dumps(self.model.vocabulary) + "\n").encode(),
            WEIGHTS_FILE: self._weights(),
        }
        card = {"name": self.name, "text_version": TEXT_VERSION, "training": self.training}
        write_card(directory, KIND, card | {"files": write_files(directory, contents)})

    def weights_sha256(self) -> str:
        """Hash of the weights file that `save` writes."""
        return hashlib.sha256(self._weights()).hexdigest()

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            DetectorError: when a file is missing, is not the one that the card was written for, or does not fit.
        """
        card = read_card(directory, KIND)
        check_text_version(directory / CARD_FILE, card.get("text_version"))
        contents = read_files(directory, FILES, card.get("files"))
        try:
            tensors = safetensors.numpy.load(contents[WEIGHTS_FILE])
            model = TfidfModel(
                json.loads(contents[VOCABULARY_FILE]),
                {kind: tensors[f"idf.{kind}"] for kind in ANALYSERS},
                tensors["coefficients"],
                float(tensors["intercept"]),
            )
            return cls(card["name"], model, card["training"])
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise DetectorError(f"{directory} does not hold a whole TF-IDF detector ({error!r})") from error

    def _weights(self) -> bytes:
        model = self.model
        tensors = {f"idf.{kind}": idf for kind, idf in model.idf.items()}
        tensors |= {"coefficients": model.coefficients, "intercept": np.array(model.intercept)}
        return safetensors.numpy.save(tensors)


def _read(texts: Sequence[str]) -> list[str]:
    """Texts in the form that they are read in."""
    return [canonical_text(text)[:LONGEST_TEXT] for text in texts]


def _vectoriser(kind: str, **settings: Any) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(**ANALYSERS[kind], sublinear_tf=True, **settings)


def _vocabulary(texts: Sequence[str], config: TfidfConfig) -> dict[str, list[str]]:
    """The most frequent n-grams of each kind in a sample of canonical texts, sorted."""
    order = np.random.default_rng(config.seed).permutation(len(texts))[: config.vocabulary_texts]
    sample = [texts[index] for index in order]
    found = {}
    for kind in ANALYSERS:
        vectoriser = _vectoriser(kind, max_features=config.vocabulary, min_df=config.least_texts)
        try:
            vectoriser.fit(sample)
        except ValueError as error:
            raise DetectorError(
                f"no {kind} n-gram is in {config.least_texts} of the {len(sample)} training texts; give more texts"
            ) from error
        found[kind] = vectoriser.get_feature_names_out().tolist()
    return found
