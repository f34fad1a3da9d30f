"""What made a figure: the command, the code, the packages, and what it cost."""

import json
import math
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import click

CODE = Path(__file__).resolve().parents[1]
"""The folder of the packages: a checkout's root, or site-packages."""

PACKAGES = (
    *("pawn-detect", "torch", "transformers", "peft", "tokenizers", "safetensors", "numpy", "scipy", "scikit-learn"),
    *("lightgbm", "polars", "pyarrow", "mlflow"),
)
"""What a figure can depend on."""

ARGUMENTS = "pawn.arguments"
"""Key of the command line's words in click's `Context.meta`; the group `pawn` puts them there."""


@dataclass(frozen=True)
class Code:
    """Which code ran: the commit of its checkout, and whether tracked files differed from it; None outside of git."""

    commit: str | None
    dirty: bool | None


def code_version() -> Code:
    """The state of the checkout that the packages are in."""
    top = _git("rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != CODE:
        return Code(None, None)  # installed: a repository around it is somebody else's
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return Code(_git("rev-parse", "HEAD"), None if changes is None else bool(changes))


def _git(*arguments: str) -> str | None:
    try:
        run = subprocess.run(["git", "-C", str(CODE), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return run.stdout.strip() if run.returncode == 0 else None


def package_versions() -> dict[str, str]:
    """Versions of Python and of every package of `PACKAGES` that is installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, str]:
    """What of the machine moves the last digits of a figure: processor, its instructions, threads, and GPU."""
    found = {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": str(os.cpu_count()),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", ""),
    }
    torch = sys.modules.get("torch")
    if torch is not None:
        found |= {"instructions": torch.backends.cpu.get_cpu_capability(), "threads": str(torch.get_num_threads())}
        if torch.cuda.is_initialized():
            found["gpu"] = torch.cuda.get_device_name()
    return found


def command_line() -> list[str] | None:
    """The words after `pawn` of the command that is running; None in a program of one's own."""
    context = click.get_current_context(silent=True)
    return None if context is None else context.meta.get(ARGUMENTS)


def peak_memory() -> dict[str, float]:
    """Largest memory of this process so far in MiB: resident, and on the GPU where one is in use."""
    found = {}
    try:
        import resource
    except ImportError:  # not on Windows
        pass
    else:
        unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
        found["peak_memory_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        found["peak_gpu_memory_mib"] = torch.cuda.max_memory_allocated() / 2**20
    return found


def plain(value: Any) -> Any:
    """The same value of what JSON knows: dataclasses and mappings as objects, sequences as lists, others as text."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(name): plain(member) for name, member in value.items()}
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, str | bytes):
        return [plain(member) for member in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return str(value)


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every leaf of nested settings, `a.b` for b in a; lists as JSON."""
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            plainly = plain(value)
            yield f"{prefix}{name}", plainly if isinstance(plainly, str) else json.dumps(plainly, ensure_ascii=False)


def key(name: str) -> str:
    """A name of a setting or a metric as MLflow takes it: `tpr@1%` is `tpr_at_1pct`."""
    named = name.replace("@", "_at_").replace("%", "pct")
    clean = re.sub(r"[^\w\-. :/]", "_", named, flags=re.ASCII)
    return "/".join(part for part in clean.split("/") if part not in ("", ".", ".."))[:250]
