"""A detector of texts as one that reads features, so that it can stand beside others of features."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from tokenizers import Tokenizer

from cache.loader import LabelledCorpus
from detect.catalog import read_detector, text_names
from detect.hashed_files import read_files, write_files
from detect.protocol import CARD_FILE, LabelledTexts, read_card, write_card
from detect.trained import DetectorCard, Progress, TrainableTextDetector, silent
from features.backbone import load_tokenizer
from features.errors import BackboneError, DetectorError
from features.registry import resolve
from features.token_features import TokenFeatures

if TYPE_CHECKING:
    from detect.text_recipes import TextRecipe

KIND = "text-member"
TOKENIZER_FILE = "tokenizer.json"
TEXT_FOLDER = "text"
"""Where the detector of texts lies inside the folder."""


def text_read(tokenizer: Tokenizer, document: TokenFeatures) -> str:
    """The text that a document's features were computed of, decoded from its tokens.

    A byte-level BPE, as that of the default backbone, loses nothing: this is the canonical text, up to the last token.
    A character that the limit on tokens, or a prefix, cuts in the middle of its bytes is left out. Of other tokenizers
    it is what they kept: one that folds case or strips accents gives the text so, one with unknown tokens without them.
    A detector learns from texts in the form that it will score.

    Args:
        tokenizer: that the tokens are of.
        document: its features.
    """
    text: str = tokenizer.decode(document.token_ids.tolist(), skip_special_tokens=True)
    return text.rstrip("\N{REPLACEMENT CHARACTER}") if document.truncated else text


class TextMember:
    """A detector of texts that is given the texts that features were computed of: a member for ensembles.

    It reads as much of a text as the features hold, a prefix of a document included, and needs no hidden states. The
    tokenizer that decodes comes from the language model that the card names, when it learns, and is saved with it.

    Args:
        card: whose features it reads; `training["recipe"]` are the arguments of `detect.text_recipes.text_recipe`.
        tokenizer: of that language model; None before `fit`.
        detector: reads the texts; None before `fit`.
    """

    needs_hidden = False

    def __init__(
        self, card: DetectorCard, tokenizer: Tokenizer | None = None, detector: TrainableTextDetector | None = None
    ) -> None:
        self.card = card
        self._tokenizer = tokenizer
        self._detector = detector

    @classmethod
    def new(cls, name: str, settings: Mapping[str, Any], backbone: dict[str, Any]) -> Self:
        """An unfitted detector of `detect.catalog.text_names`; its base model, if any, is first needed by `fit`.

        Args:
            name: of the catalog.
            settings: that `text_recipe` takes beside the name, checked by it before.
            backbone: the record of the language model in a `DetectorCard`.
        """
        return cls(DetectorCard(name=name, backbone=backbone, training={"recipe": {"name": name, **settings}}))

    @property
    def name(self) -> str:
        """What a person calls it."""
        return self.card.name

    @property
    def config(self) -> "TextRecipe":
        """The recipe of `fit`, with its defaults."""
        from detect.text_recipes import text_recipe  # loads the code of every kind, which scoring has no use for

        return text_recipe(**self.card.training["recipe"])

    @property
    def detector(self) -> TrainableTextDetector:
        """What reads the texts; DetectorError before `fit`."""
        return self._fitted()[1]

    def fit(self, train: LabelledCorpus, validation: LabelledCorpus, progress: Progress = silent) -> Self:
        """Decode both parts, held in memory, and train a new detector of texts on them.

        Raises:
            DetectorError: when the tokenizer of the features cannot be had, or nothing can be learnt from these texts.
            BackboneError: when the base model of the detector cannot be had.
        """
        tokenizer = _tokenizer_of(self.card) if self._tokenizer is None else self._tokenizer
        recipe = self.config
        detector = recipe.new(self.name)
        parts = (_labelled_texts(tokenizer, part) for part in (train, validation))
        recipe.fit(detector, *parts, progress=progress)
        self._tokenizer, self._detector = tokenizer, detector
        return self

    def score(self, features: Sequence[TokenFeatures]) -> np.ndarray:
        """The scores (n_docs,) float64 that the detector gives the texts of these features, in the order given.

        Raises:
            DetectorError: when it is not trained.
            ValueError: for a text without a token of the detector's own.
        """
        tokenizer, detector = self._fitted()
        return detector.score([text_read(tokenizer, document) for document in features])

    def save(self, directory: Path) -> None:
        """Write the detector into a folder of its own, the tokenizer and, last, `detector.json`."""
        tokenizer, detector = self._fitted()
        detector.save(directory / TEXT_FOLDER)
        files = write_files(directory, {TOKENIZER_FILE: tokenizer.to_str().encode()})
        write_card(directory, KIND, {**asdict(self.card), "files": files})

    def weights_sha256(self) -> str:
        """Hash of what the detector of texts learnt."""
        return self.detector.weights_sha256()

    @classmethod
    def load(cls, directory: Path, *, device: str | None = None, say: Callable[[str], None] | None = None) -> Self:
        """Read what `save` wrote; the language model that made the features is not needed.

        Args:
            directory: what it was saved to.
            device: for a detector that is a transformer: "cpu" or "cuda"; default: cuda when there is one.
            say: told of the download of a base model.

        Raises:
            DetectorError: when a file is missing, of another kind or format, or not what was saved.
        """
        record = read_card(directory, KIND)
        content = read_files(directory, (TOKENIZER_FILE,), record.get("files"))[TOKENIZER_FILE]
        try:
            card = DetectorCard.from_record(record)
            name = card.training["recipe"]["name"]
            tokenizer = Tokenizer.from_str(content.decode())
        except Exception as error:  # tokenizers raises Exception itself
            raise DetectorError(f"{directory} does not hold a whole detector of kind {KIND!r} ({error!r})") from error
        folder = directory / TEXT_FOLDER
        if (kind := read_card(folder).get("kind")) != name or kind not in text_names():
            raise DetectorError(f"{folder} holds a detector of kind {kind!r}, {directory / CARD_FILE} says {name!r}")
        detector = read_detector(folder, device=device, say=say)
        assert isinstance(detector, TrainableTextDetector)  # as every kind of them is
        return cls(card, tokenizer, detector)

    def _fitted(self) -> tuple[Tokenizer, TrainableTextDetector]:
        if self._tokenizer is None or self._detector is None:
            raise DetectorError(f"detector {self.name} is not trained yet; fit it first")
        return self._tokenizer, self._detector


def _labelled_texts(tokenizer: Tokenizer, part: LabelledCorpus) -> LabelledTexts:
    """The texts of cached documents, in the order of the corpus, with their labels."""
    texts = [""] * len(part.corpus)
    for place, document in part.corpus.without_hidden().documents():
        texts[place] = text_read(tokenizer, document)
    return LabelledTexts(texts, part.labels)


def _tokenizer_of(card: DetectorCard) -> Tokenizer:
    """The tokenizer of the language model that a card names; DetectorError where it is not there or another one."""
    if not (name := card.backbone.get("name")):
        raise DetectorError(
            f"detector {card.name} reads texts, and its card names no language model to decode the features' tokens; "
            'give a card whose backbone has a "name"'
        )
    try:
        tokenizer, found = _named_tokenizer(name)
    except BackboneError as error:
        raise DetectorError(f"detector {card.name} needs the tokenizer of language model {name}: {error}") from error
    if (expected := card.backbone.get("fingerprint", {}).get("tokenizer_id", found)) != found:
        raise DetectorError(
            f"detector {card.name} is to read features with tokenizer_id {expected}, language model {name} has now "
            f"{found}; extract them again with it"
        )
    return tokenizer


@lru_cache(maxsize=1)  # a training with domains left out asks once for each: some models take seconds to hash
def _named_tokenizer(name: str) -> tuple[Tokenizer, str]:
    """The tokenizer of a language model, and its identity."""
    files = resolve(name)
    return load_tokenizer(files.path), files.tokenizer_id
