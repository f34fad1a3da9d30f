"""What keeps a process from growing while it works on batches of ever other shapes."""

import ctypes
import os
from functools import lru_cache

KERNELS_KEPT = 256
"""Compiled kernels that oneDNN keeps: more than a training step or a batch's layers need. Its default, 1,024, are
mostly of shapes that do not come again, and take gigabytes; 64 made scoring a fifth slower."""


def prepare_memory() -> None:
    """Say what torch and oneDNN are to do with memory. They ask once, at their first work; later it changes nothing.

    oneDNN, which multiplies bfloat16 matrices on a CPU, keeps few kernels. Tensors of 2 MB and more go on huge pages
    where Linux gives them to who asks: without, training spends much of its time in the system on page faults. Who has
    set `ONEDNN_PRIMITIVE_CACHE_CAPACITY` or `THP_MEM_ALLOC_ENABLE` keeps it.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(KERNELS_KEPT))
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def release_freed() -> None:
    """Give freed memory back to the system, which the C library else keeps in pieces between what is still in use.

    Some milliseconds; nothing where the C library is not glibc.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@lru_cache(maxsize=1)
def _malloc_trim() -> "ctypes._NamedFuncPointer | None":
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
