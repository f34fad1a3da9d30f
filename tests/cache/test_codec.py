from pathlib import Path

import numpy as np
import pytest

from cache.codec import FLOAT16, PLAIN_CODECS, Codec
from cache.codec_catalog import AUTO, BASES, as_stored, codec_in, codec_named
from cache.projection import BASIS_FILE, LEVELS, Projection, ProjectionFit, allocation
from features.errors import CacheError, UsageError
from tests.cache.feature_makers import made_up


def correlated(rows: int, columns: int, *, seed: int = 0) -> np.ndarray:
    """States whose channels differ in scale and share directions."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(9).normal(size=(columns, columns)) * np.geomspace(4, 0.1, columns)[:, None]
    return (rng.normal(size=(rows, columns)) @ mixing + 3).astype(np.float16)


@pytest.fixture(scope="module")
def fitted() -> Projection:
    fit = ProjectionFit(40)
    for seed in range(3):
        fit.add(correlated(4000, 40, seed=seed))
    return fit.projection()


def there_and_back(codec: Codec, hidden: np.ndarray) -> np.ndarray:
    return codec.decode(memoryview(codec.encode(hidden)), hidden.shape[1])


@pytest.mark.parametrize("name", PLAIN_CODECS)
@pytest.mark.parametrize("shape", [(0, 4), (1, 1), (2, 7), (131, 577)])
def test_a_plain_codec_gives_back_the_shape_and_type(name: str, shape: tuple[int, int]) -> None:
    hidden = np.random.default_rng(0).normal(size=shape).astype(np.float16)
    decoded = there_and_back(PLAIN_CODECS[name], hidden)
    assert (decoded.shape, decoded.dtype) == (shape, np.float16)


def test_float16_keeps_every_bit_pattern() -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16).reshape(-1, 256)  # infinities and NaN too
    assert there_and_back(FLOAT16, every).tobytes() == every.tobytes()


def test_float16_takes_two_bytes_a_number_row_by_row_little_endian() -> None:
    hidden = np.array([[1.0, 2.0], [0.5, -2.0]], dtype=np.float16)
    assert FLOAT16.encode(hidden).hex(" ", 2) == "003c 0040 0038 00c0"


def test_float16_encodes_a_view_as_its_rows_and_not_as_its_memory() -> None:
    hidden = np.arange(12, dtype=np.float16).reshape(3, 4)
    assert np.array_equal(there_and_back(FLOAT16, hidden[:, ::2]), hidden[:, ::2])


def test_float16_is_decoded_without_a_copy() -> None:
    data = FLOAT16.encode(np.zeros((3, 4), np.float16))
    assert np.shares_memory(FLOAT16.decode(memoryview(data), 4), np.frombuffer(data, np.uint8))


@pytest.mark.parametrize(("name", "levels"), [("int8", 127), ("int4", 7)])
def test_integers_are_off_by_no_more_than_half_a_level_of_their_token(name: str, levels: int) -> None:
    hidden = np.random.default_rng(1).normal(size=(50, 33)).astype(np.float16) * np.geomspace(1e-3, 1e3, 50)[:, None]
    hidden = hidden.astype(np.float16)
    error = np.abs(there_and_back(PLAIN_CODECS[name], hidden).astype(np.float64) - hidden)
    level = np.abs(hidden.astype(np.float64)).max(1, keepdims=True) / levels
    assert (error <= level * 0.5 * (1 + 0.01 * levels)).all()  # the scale itself and the result are float16
    assert error.max() > 0


@pytest.mark.parametrize(("name", "size"), [("int8", 2 + 33), ("int4", 2 + 17)])
def test_integers_take_the_bytes_that_they_say(name: str, size: int) -> None:
    assert len(PLAIN_CODECS[name].encode(np.ones((5, 33), np.float16))) == 5 * size


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_a_state_of_zeros_and_one_of_the_largest_numbers_survive(name: str) -> None:
    hidden = np.array([[0, 0, 0], [65504, -65504, 0]], np.float16)
    decoded = there_and_back(PLAIN_CODECS[name], hidden)
    assert np.isfinite(decoded).all()
    assert (decoded[0] == 0).all()
    np.testing.assert_allclose(decoded[1], hidden[1], rtol=0.01)


BITS = np.repeat([4, 2, 1], [8, 8, 16])  # of the 32 coordinates of 40 dimensions


def test_a_fitted_codec_gives_the_state_of_its_rounded_coordinates(fitted: Projection) -> None:
    hidden = correlated(2000, 40, seed=7)
    assert len(fitted.encode(hidden)) == 2000 * fitted.bytes_per_token == 2000 * (4 + 2 + 2)
    directions = fitted.directions.astype(np.float64)
    exact = (hidden.astype(np.float64) - fitted.mean) @ directions
    np.testing.assert_allclose(exact.std(0), 1, atol=0.2)
    nearest = np.empty_like(exact)
    for bits, error in ((4, 0.0095), (2, 0.1175), (1, 0.3634)):  # Max 1960, of a normal variable
        chosen = exact[:, bits == BITS]
        rounded = LEVELS[bits][np.abs(chosen[..., None] - LEVELS[bits].astype(np.float64)).argmin(-1)]
        assert ((rounded - chosen) ** 2).mean() == pytest.approx(error, rel=0.15)
        nearest[:, bits == BITS] = rounded
    expected = fitted.mean + nearest @ np.linalg.pinv(directions)
    decoded = there_and_back(fitted, hidden)
    assert (decoded.shape, decoded.dtype) == ((2000, 40), np.float16)
    assert (np.abs(decoded - expected).max(1) < 0.05).mean() > 0.99  # in the others a coordinate lies on an edge


def test_a_fitted_codec_loses_less_where_states_vary_more(fitted: Projection) -> None:
    hidden = correlated(2000, 40, seed=7).astype(np.float64)
    error = there_and_back(fitted, hidden.astype(np.float16)) - hidden
    assert (error**2).sum() < 0.06 * ((hidden - hidden.mean(0)) ** 2).sum()


def test_the_directions_are_the_leading_ones(fitted: Projection) -> None:
    hidden = np.concatenate([correlated(4000, 40, seed=seed) for seed in range(3)]).astype(np.float64)
    centred = hidden - hidden.mean(0)
    _, values, vectors = np.linalg.svd(centred, full_matrices=False)
    expected = centred @ vectors[:8].T / (values[:8] / np.sqrt(len(hidden)))
    found = (hidden - fitted.mean) @ fitted.directions.astype(np.float64)
    similarity = np.abs((expected * found[:, :8]).mean(0))
    np.testing.assert_allclose(similarity, 1, atol=0.02)


@pytest.mark.parametrize("size", [24, 32, 64, 576, 768, 1024, 4096])
def test_the_bits_of_a_state_are_at_most_a_tenth_of_its_float16_but_for_tiny_ones(size: int) -> None:
    found = allocation(size)
    assert sum(found.values()) <= size
    assert all(count % 8 == 0 for count in found.values())
    assert sum(bits * count for bits, count in found.items()) <= 1.6 * size or size < 64


def test_each_token_is_encoded_by_itself(fitted: Projection) -> None:
    hidden = correlated(20, 40, seed=3)
    for codec in (*PLAIN_CODECS.values(), fitted):
        assert b"".join(codec.encode(row[None]) for row in hidden) == codec.encode(hidden)


def test_a_fitted_codec_keeps_name_and_numbers_on_disk(fitted: Projection, tmp_path: Path) -> None:
    fitted.save(tmp_path / BASIS_FILE)
    loaded = codec_in(tmp_path, fitted.name)
    hidden = correlated(5, 40)
    assert loaded.name == fitted.name
    assert loaded.encode(hidden) == fitted.encode(hidden)


def test_fits_of_other_texts_have_other_names(fitted: Projection) -> None:
    other = ProjectionFit(40)
    other.add(correlated(1200, 40, seed=8))
    assert other.projection().name != fitted.name
    assert other.projection().name.startswith("pca8-")


def test_states_of_another_size_are_refused(fitted: Projection) -> None:
    with pytest.raises(CacheError, match="fitted to hidden states of 40 dimensions, these have 25"):
        fitted.encode(np.zeros((3, 25), np.float16))


def test_states_too_small_to_fit_are_refused() -> None:
    fit = ProjectionFit(20)
    fit.add(correlated(400, 20))
    with pytest.raises(ValueError, match="20 dimensions are too small for this codec; use int8"):
        fit.projection()


def test_too_few_states_to_fit_are_refused() -> None:
    fit = ProjectionFit(24)
    fit.add(correlated(191, 24))
    with pytest.raises(ValueError, match="191 states are too few to fit 24 dimensions; give at least 192"):
        fit.projection()


def test_a_constant_channel_does_not_break_the_fit() -> None:
    hidden = correlated(400, 24)
    hidden[:, 5] = 2
    fit = ProjectionFit(24)
    fit.add(hidden)
    assert np.isfinite(there_and_back(fit.projection(), hidden)).all()


def test_names_lead_to_codecs(fitted: Projection, tmp_path: Path) -> None:
    fitted.save(tmp_path / "my.codec")
    assert codec_named("int4", "w") is PLAIN_CODECS["int4"]
    assert codec_named(str(tmp_path / "my.codec"), "w").name == fitted.name
    assert codec_named(AUTO, "a backbone that nothing ships for") is PLAIN_CODECS["int8"]
    with pytest.raises(UsageError, match=r"no codec 'float8': expected one of auto, float16, int8, int4, or a file"):
        codec_named("float8", "w")


def test_a_file_that_is_no_codec_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"nothing of the kind")
    with pytest.raises(CacheError, match="holds no fitted codec"):
        codec_named(str(tmp_path / "x"), "w")


def test_a_codec_that_is_nowhere_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="needs codec pca8-00000000"):
        codec_in(tmp_path, "pca8-00000000")


@pytest.mark.parametrize("path", sorted(BASES.glob("*.safetensors")), ids=lambda path: path.stem)
def test_what_ships_is_found_by_the_weights_it_was_fitted_to(path: Path) -> None:
    codec = codec_named(AUTO, f"sha256:{path.stem}{'0' * 48}")
    assert isinstance(codec, Projection)
    assert codec_in(Path("nowhere"), codec.name) is codec


def test_features_pass_through_a_codec_as_through_a_cache() -> None:
    features = made_up(1, 9)
    seen = as_stored(features, PLAIN_CODECS["int4"])
    assert np.array_equal(seen.hidden, there_and_back(PLAIN_CODECS["int4"], features.hidden))
    assert seen.metrics is features.metrics
