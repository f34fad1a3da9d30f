"""A process gives back what it has freed, and keeps few kernels."""

import os
import subprocess
import sys

import numpy as np
import pytest

from features.memory import KERNELS_KEPT, prepare_memory, release_freed

GIVES_BACK = """
import numpy as np
from features.memory import release_freed

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

pieces = [np.ones(2_000) for _ in range(20_000)]  # 320 MB, each piece below what the system gives by itself
kept = pieces[::50]  # what is freed lies in pieces between these
full = resident()
del pieces
release_freed()
print((full - resident()) / (320e6 * 0.98))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads Linux' own account of memory")
def test_what_is_freed_between_kept_pieces_goes_back_to_the_system() -> None:
    found = subprocess.run([sys.executable, "-c", GIVES_BACK], capture_output=True, text=True, check=True)
    assert float(found.stdout) > 0.9


@pytest.mark.parametrize(
    ("name", "value"), [("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(KERNELS_KEPT)), ("THP_MEM_ALLOC_ENABLE", "1")]
)
def test_memory_is_prepared_unless_a_person_has_said_otherwise(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.delenv(name, raising=False)
    prepare_memory()
    assert os.environ[name] == value
    monkeypatch.setenv(name, "7")
    prepare_memory()
    assert os.environ[name] == "7"


def test_giving_back_changes_nothing_that_is_in_use() -> None:
    values = np.arange(100_000.0)
    release_freed()
    assert values.sum() == 100_000 * 99_999 / 2
