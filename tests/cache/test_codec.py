import numpy as np
import pytest

from cache.codec import CODECS, codec_named
from features.errors import CacheError


@pytest.mark.parametrize("name", sorted(CODECS))
@pytest.mark.parametrize("shape", [(1, 1), (2, 7), (131, 577)])
def test_a_codec_gives_back_the_shape_and_type(name: str, shape: tuple[int, int]) -> None:
    hidden = np.random.default_rng(0).normal(size=shape).astype(np.float16)
    decoded = CODECS[name].decode(memoryview(CODECS[name].encode(hidden)), shape[1])
    assert (decoded.shape, decoded.dtype) == (shape, np.float16)


def test_float16_keeps_every_bit_pattern() -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16).reshape(-1, 256)  # infinities and NaN too
    data = codec_named("float16").encode(every)
    assert codec_named("float16").decode(memoryview(data), 256).tobytes() == every.tobytes()


def test_float16_takes_two_bytes_a_number_row_by_row_little_endian() -> None:
    hidden = np.array([[1.0, 2.0], [0.5, -2.0]], dtype=np.float16)
    assert codec_named("float16").encode(hidden).hex(" ", 2) == "003c 0040 0038 00c0"


def test_float16_encodes_a_view_as_its_rows_and_not_as_its_memory() -> None:
    hidden = np.arange(12, dtype=np.float16).reshape(3, 4)
    data = codec_named("float16").encode(hidden[:, ::2])
    assert np.array_equal(codec_named("float16").decode(memoryview(data), 2), hidden[:, ::2])


def test_float16_is_decoded_without_a_copy() -> None:
    data = codec_named("float16").encode(np.zeros((3, 4), np.float16))
    decoded = codec_named("float16").decode(memoryview(data), 4)
    assert np.shares_memory(decoded, np.frombuffer(data, np.uint8))


def test_an_unknown_codec_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(CacheError, match=r"unknown hidden-state codec 'float8'; this version knows float16"):
        codec_named("float8")
