"""Detectors of texts among those of features: what they are given to read, on disk and in an ensemble."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache.loader import CachedCorpus, LabelledCorpus
from cache.store import FeatureStore
from detect.catalog import load_detector, new_detector, read_detector
from detect.ensemble import EnsembleDetector
from detect.finetuned import FineTunedEncoder
from detect.lora import LabelSupervisedLM
from detect.protocol import needs_hidden
from detect.text_member import TextMember, text_read
from detect.tfidf import TfidfConfig, TfidfDetector
from detect.trained import DetectorCard, TrainableDetector, band_scores
from features.backbone import Backbone, load_tokenizer
from features.documents import canonical_text, text_key
from features.errors import DetectorError, UsageError
from features.extractor import Extractor
from features.registry import BackboneFiles, resolve
from features.token_features import TokenFeatures
from tests.detect.labelled_texts import make_texts
from tests.features.tiny_models import END_OF_TEXT, write_tiny_encoder, write_tiny_model

MAX_LENGTH = 200
TRAIN, VALIDATION, OTHERS = make_texts(48), make_texts(24, seed=1), make_texts(10, seed=2).texts
STRANGE = (
    "  Two  spaces,\na line break and\ttabs\u00a0. ",
    f"Special tokens in a text {END_OF_TEXT} are text.",
    "Crème brûlée, naïve; 东京的天气很好。 Привет!",
    "Smileys \U0001f600\U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 and e\u0301 apart",
    "It ends in what stands for a broken character \ufffd",
)
RECIPES = {"tfidf": {"vocabulary": 200}, "lightgbm": {"rounds": 20}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def extractor(model: Path) -> Extractor:
    return Extractor(Backbone.load(resolve(str(model)), device="cpu"), max_length=MAX_LENGTH)


def features_of(extractor: Extractor, texts: Sequence[str]) -> list[TokenFeatures]:
    return extractor.extract([text_key(text) for text in texts], extractor.encode(texts))


def labelled(extractor: Extractor, folder: Path, texts: Any) -> LabelledCorpus:
    store = FeatureStore(folder, extractor.fingerprint)
    store.write(features_of(extractor, texts.texts))
    return LabelledCorpus(CachedCorpus(store, [text_key(text) for text in texts.texts]), texts.labels)


@pytest.fixture(scope="module")
def train(extractor: Extractor, tmp_path_factory: pytest.TempPathFactory) -> LabelledCorpus:
    return labelled(extractor, tmp_path_factory.mktemp("train"), TRAIN)


@pytest.fixture(scope="module")
def validation(extractor: Extractor, tmp_path_factory: pytest.TempPathFactory) -> LabelledCorpus:
    return labelled(extractor, tmp_path_factory.mktemp("validation"), VALIDATION)


@pytest.fixture(scope="module")
def backbone(extractor: Extractor, model: Path) -> dict[str, Any]:
    """What a training writes down of the language model."""
    fingerprint = extractor.fingerprint.to_dict()
    return {"name": str(model), "hidden_size": extractor.backbone.hidden_size, "fingerprint": fingerprint}


def ensemble(backbone: dict[str, Any], members: tuple[str, ...] = ("tfidf", "lightgbm"), **settings: Any) -> Any:
    card = DetectorCard(name="both", backbone=backbone)
    settings = {"recipes": {name: RECIPES[name] for name in members if name in RECIPES}} | settings
    return new_detector("ensemble", hidden_size=backbone["hidden_size"], card=card, members=members, **settings)


@pytest.fixture(scope="module")
def fitted(backbone: dict[str, Any], train: LabelledCorpus, validation: LabelledCorpus) -> EnsembleDetector:
    detector = ensemble(backbone).fit(train, validation)
    assert isinstance(detector, EnsembleDetector)
    return detector


@pytest.fixture(scope="module")
def member(fitted: EnsembleDetector) -> TextMember:
    assert isinstance(fitted.members[0], TextMember)
    return fitted.members[0]


@pytest.mark.parametrize("text", [*STRANGE, *OTHERS])
def test_a_text_is_decoded_as_the_language_model_read_it(extractor: Extractor, text: str) -> None:
    whole = Extractor(extractor.backbone, max_length=400)
    (document,) = features_of(whole, [text])
    assert not document.truncated
    assert text_read(extractor.backbone.tokenizer, document) == canonical_text(text)


@pytest.mark.parametrize("text", STRANGE)
def test_a_prefix_is_decoded_to_the_characters_that_it_holds_whole(extractor: Extractor, text: str) -> None:
    (document,) = features_of(Extractor(extractor.backbone, max_length=400), [text])
    read = canonical_text(text)
    for n_tokens in range(2, document.n_tokens):
        whole = int(document.offsets[n_tokens, 0])  # where the next token begins, if need be inside a character
        found = text_read(extractor.backbone.tokenizer, document.prefix(n_tokens))
        assert found == read[:whole].rstrip("\ufffd"), n_tokens


def test_a_text_over_the_limit_is_read_up_to_it(extractor: Extractor) -> None:
    text = "The river ran past the old mill. " * 40
    (document,) = features_of(extractor, [text])
    assert document.truncated
    assert text_read(extractor.backbone.tokenizer, document) == text[: int(document.offsets[-1, 1])]


def test_a_member_learns_and_scores_as_the_detector_of_texts_alone(
    member: TextMember, extractor: Extractor, fitted: EnsembleDetector
) -> None:
    alone = TfidfDetector("words")
    alone.fit(TRAIN, VALIDATION, TfidfConfig(**RECIPES["tfidf"]))
    assert isinstance(member, TrainableDetector)
    assert member.weights_sha256() == alone.weights_sha256()
    documents = features_of(extractor, OTHERS)
    assert member.score(documents).tolist() == alone.score(OTHERS).tolist()
    assert member.score([]).shape == (0,)
    assert list(fitted.card.training["weights"]) == ["tfidf", "lightgbm"]
    assert fitted.card.training["weights"]["tfidf"] > 0


def test_a_member_scores_the_text_of_a_prefix(member: TextMember, extractor: Extractor) -> None:
    (document,) = features_of(extractor, [OTHERS[0]])
    for n_tokens in (5, 17):
        text = canonical_text(OTHERS[0])[: int(document.offsets[n_tokens - 1, 1])]
        assert member.score([document.prefix(n_tokens)]).tolist() == member.detector.score([text]).tolist()


def test_an_ensemble_with_texts_is_scored_at_every_length(fitted: EnsembleDetector, validation: LabelledCorpus) -> None:
    places, scores, lengths = band_scores(fitted, validation.corpus)
    assert np.isfinite(scores).all()
    assert set(places) == set(range(len(VALIDATION.texts)))
    documents = dict(validation.corpus.documents())
    parts = [documents[place].prefix(length) for place, length in zip(places, lengths, strict=True)]
    assert fitted.score(parts).tolist() == scores.tolist()


def test_an_ensemble_of_texts_and_pooled_metrics_reads_no_hidden_states(
    fitted: EnsembleDetector, extractor: Extractor
) -> None:
    assert not needs_hidden(fitted)
    assert fitted.score(features_of(extractor, OTHERS)).shape == (10,)


def test_a_saved_ensemble_scores_as_before_and_needs_no_language_model(
    fitted: EnsembleDetector, extractor: Extractor, model: Path, tmp_path: Path
) -> None:
    fitted.save(tmp_path / "saved")
    card = json.loads((tmp_path / "saved" / "detector.json").read_text())
    (tmp_path / "saved" / "detector.json").write_text(json.dumps(card).replace(str(model), "/gone"))
    found = load_detector(str(tmp_path / "saved"), device="cpu", say=print)
    assert found.backbone == "/gone"
    assert isinstance(found.detector, EnsembleDetector)
    documents = features_of(extractor, OTHERS)
    assert found.detector.score(documents).tolist() == fitted.score(documents).tolist()
    assert found.identity["weights_sha256"] == fitted.weights_sha256()
    files = {path.relative_to(tmp_path / "saved").as_posix() for path in (tmp_path / "saved").rglob("*.*")}
    assert {f"members/0-tfidf/{name}" for name in ("detector.json", "tokenizer.json", "text/vocabulary.json")} <= files
    found.detector.save(tmp_path / "again")
    assert read_detector(tmp_path / "again").score(documents).tolist() == fitted.score(documents).tolist()


def test_a_loaded_ensemble_learns_by_its_recipe_again(
    fitted: EnsembleDetector, train: LabelledCorpus, validation: LabelledCorpus, tmp_path: Path
) -> None:
    fitted.save(tmp_path)
    again = EnsembleDetector.load(tmp_path).fit(train, validation)
    assert again.weights_sha256() == fitted.weights_sha256()


def test_recipes_of_members_that_read_texts_are_theirs_and_so_is_the_seed(
    backbone: dict[str, Any],
    model: Path,
    train: LabelledCorpus,
    validation: LabelledCorpus,
    extractor: Extractor,
    tmp_path: Path,
) -> None:
    quick = {"max_length": 20, "device": "cpu", "epochs": 1}
    recipes = {
        "tfidf": {"vocabulary": 30, "seed": 4},
        "encoder": {"base": str(write_tiny_encoder(tmp_path / "encoder")), **quick},
        "lora": {"base": str(model), "shape": {"rank": 3}, "noise": {"layers": 1}, **quick},
    }
    detector = ensemble(backbone, ("tfidf", "encoder", "lora", "rank"), recipes=recipes, seed=7)
    events: list[str] = []
    detector.fit(train, validation, lambda event, values: events.append(event))
    words, encoder, lora = (part.detector for part in detector.members[:3])
    assert isinstance(encoder, FineTunedEncoder)
    assert isinstance(lora, LabelSupervisedLM)
    assert [part.training["config"]["seed"] for part in (words, encoder, lora)] == [4, 7, 7]
    assert words.training["config"]["vocabulary"] == 30
    assert (encoder.card.max_length, lora.shape.rank) == (20, 3)
    assert lora.training["config"]["noise"] is not None
    assert {"epoch", "fitted"} <= set(events)
    detector.save(tmp_path / "saved")
    documents = features_of(extractor, OTHERS)
    loaded = load_detector(str(tmp_path / "saved"), device="cpu").detector
    assert isinstance(loaded, EnsembleDetector)
    assert loaded.score(documents).tolist() == detector.score(documents).tolist()


@pytest.mark.parametrize(
    ("recipes", "message"),
    [
        ({"tfidf": {"vocabulary": 0}}, "tfidf cannot be trained like that: expected vocabulary of at least 1, got 0"),
        ({"encoder": {"epochs": 0}}, "encoder cannot be trained like that: expected epochs of at least 1, got 0"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused_before_anything_is_trained(
    backbone: dict[str, Any], recipes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        ensemble(backbone, ("tfidf", "encoder", "rank"), recipes=recipes)


def test_a_member_that_was_never_trained_says_so(backbone: dict[str, Any]) -> None:
    with pytest.raises(DetectorError, match="detector tfidf is not trained yet; fit it first"):
        TextMember.new("tfidf", {}, backbone).score([])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": ""}, 'tfidf reads texts, and its card names no language model .* whose backbone has a "name"'),
        ({"name": "/no/model"}, "tfidf needs the tokenizer of language model /no/model: no model at /no/model"),
        (
            {"fingerprint": {"tokenizer_id": "another"}},
            "tfidf is to read features with tokenizer_id another, language model .* has now files-sha256:",
        ),
    ],
)
def test_a_tokenizer_that_cannot_be_had_is_named(
    backbone: dict[str, Any], train: LabelledCorpus, validation: LabelledCorpus, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(DetectorError, match=message):
        TextMember.new("tfidf", {}, backbone | change).fit(train, validation)


def rewrite(folder: Path, **fields: Any) -> None:
    card = json.loads((folder / "detector.json").read_text())
    (folder / "detector.json").write_text(json.dumps(card | fields))


def damage_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")


def other_text_detector(folder: Path) -> None:
    words = TfidfDetector("words")
    words.fit(make_texts(16), make_texts(8, seed=1)).save(folder / "text")


def itself_inside(folder: Path) -> None:
    shutil.copytree(folder, folder / "copy")
    shutil.rmtree(folder / "text")
    (folder / "copy").rename(folder / "text")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (damage_tokenizer, "tokenizer.json has SHA-256 .* one of the two is damaged"),
        (lambda folder: rewrite(folder, files={"../tokenizer.json": "0"}), "does not say the hashes of tokenizer.json"),
        (lambda folder: rewrite(folder, training={}), "does not hold a whole detector of kind 'text-member'"),
        (itself_inside, "text holds a detector of kind 'text-member', .*detector.json says 'tfidf'"),
        (lambda folder: shutil.rmtree(folder / "text"), "cannot read .*text"),
        (other_text_detector, "0-tfidf holds a member with hash .*; train it again"),
    ],
)
def test_a_folder_that_is_not_what_was_saved_is_refused(
    fitted: EnsembleDetector, change: Any, message: str, tmp_path: Path
) -> None:
    fitted.save(tmp_path)
    change(tmp_path / "members" / "0-tfidf")
    with pytest.raises(DetectorError, match=message):
        EnsembleDetector.load(tmp_path)


@pytest.mark.slow
def test_the_default_tokenizer_gives_real_texts_back(backbone_home: Path, shared_data: Path) -> None:
    import polars as pl

    files: BackboneFiles = resolve("smollm2-135m")
    tokenizer = load_tokenizer(files.path)
    for path in sorted(shared_data.glob("*.parquet")):
        texts = [canonical_text(text) for text in pl.read_parquet(path)["text"].sample(200, seed=0)]
        for text, encoding in zip(texts, tokenizer.encode_batch(texts), strict=True):
            ids = np.asarray(encoding.ids, dtype=np.int32)
            offsets = np.asarray(encoding.offsets, dtype=np.int32)
            empty = np.empty((len(ids), 0), dtype=np.float16)
            kinds = np.zeros(len(ids), dtype=np.uint8)
            document = TokenFeatures("key", ids, kinds, offsets, empty[1:].astype(np.float32), empty, False)
            assert text_read(tokenizer, document) == text
