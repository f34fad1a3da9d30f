"""The demo: prose out of docstrings, texts that a model writes, and what a detector says of both."""

import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch

from detect.calibrated import CalibratedDetector
from detect.calibration import Calibration
from detect.zero_shot import ZERO_SHOT
from features.backbone import Backbone
from features.errors import PawnError
from features.extractor import Extractor
from features.registry import BackboneFiles
from pipelines.commands.demo import _print
from pipelines.demo import (
    MAX_NEW_TOKENS,
    MIN_WORDS,
    OPENINGS,
    DemoResult,
    Sample,
    ScoredSample,
    docstring_samples,
    one_paragraph,
    prose_of,
    run_demo,
    written_samples,
)
from pipelines.scoring import Scorer
from tests.features.tiny_models import write_tiny_model

SENTENCE = "The ferry left late again and nobody on the pier was in a hurry any more."  # 16 words
FIVE = "\n".join([SENTENCE] * 5)  # 80 words in five lines
STDLIB = Path(sysconfig.get_paths()["stdlib"])


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    path = write_tiny_model(tmp_path_factory.mktemp("llama"))
    return Backbone.load(BackboneFiles("tiny", path, "w", "t"), device="cpu", dtype=torch.float32)


def write_module(path: Path, docstring: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'class Thing:\n    """{docstring}"""\n')


def test_prose_is_unwrapped_into_one_line():
    prose = prose_of(f"{FIVE}\n\n{FIVE}")
    assert prose == " ".join([SENTENCE] * 10)


def test_prose_ends_with_the_paragraph_that_makes_it_long_enough():
    prose = prose_of("\n\n".join([FIVE] * 5))
    assert prose is not None
    assert len(prose.split()) == 160


@pytest.mark.parametrize(
    "between",
    [
        ">>> score(1)\n1",
        "    an indented block of words that could pass for prose, were it not for its indentation.",
        "- The first of the things that are listed here, which are many and need some words each.",
        "1. The first of the things that are listed here, which are many and need some words each.",
        "Usage\n=====",
        "The call that is made most often, by far, in the code that we have seen so far, is run(1, 2).",
        "Copyright of all these many words is held by the people who have written them down here.",
        "Short.",
    ],
)
def test_what_is_not_prose_interrupts_it(between: str):
    assert prose_of(f"{FIVE}\n\n{between}\n\n{FIVE}") is None
    assert prose_of(f"{between}\n\n{FIVE}\n\n{FIVE}") == " ".join([SENTENCE] * 10)


def test_one_paragraph_drops_layout_and_control_characters():
    assert one_paragraph("  a\n\n b\tc\0d\x1b\r\n") == "a b cd"


def test_samples_are_spread_over_the_modules_in_alphabetical_order(tmp_path: Path):
    for name in ("a", "b", "pkg/__init__", "pkg/c", "d"):
        write_module(tmp_path / f"{name}.py", f"{FIVE}\n\n{FIVE}")
    assert [s.source for s in docstring_samples(tmp_path, 5)] == [
        f"{name} docstring" for name in ("a", "b", "d", "pkg", "pkg.c")
    ]
    assert [s.source for s in docstring_samples(tmp_path, 2)] == ["a docstring", "d docstring"]
    assert all(s.label == 0 for s in docstring_samples(tmp_path, 2))


def test_tests_and_other_peoples_packages_are_not_the_library(tmp_path: Path):
    for name in ("test/a", "site-packages/b", "json/tests/c", "d"):
        write_module(tmp_path / f"{name}.py", f"{FIVE}\n\n{FIVE}")
    assert [s.source for s in docstring_samples(tmp_path, 1)] == ["d docstring"]
    with pytest.raises(PawnError, match=rf"expected 2 modules .* of 120 words of prose below {tmp_path}, found 1;"):
        docstring_samples(tmp_path, 2)


def test_a_file_that_is_no_python_is_passed_over(tmp_path: Path):
    (tmp_path / "a.py").write_text("def {{ name }}():")
    (tmp_path / "b.py").write_bytes(b"# coding: utf-8\nx = '\xff'\n")
    (tmp_path / "c.py").write_bytes(b"x = '\0'\n")
    write_module(tmp_path / "d.py", f"{FIVE}\n\n{FIVE}")
    assert [s.source for s in docstring_samples(tmp_path, 1)] == ["d docstring"]


def test_this_pythons_library_gives_eight_long_texts_the_same_every_time():
    samples = docstring_samples(STDLIB, 8)
    assert samples == docstring_samples(STDLIB, 8)
    assert len({s.source for s in samples}) == len({s.text for s in samples}) == 8
    for sample in samples:
        assert len(sample.text.split()) >= MIN_WORDS
        assert "\n" not in sample.text
        assert ">>>" not in sample.text


def test_a_model_writes_the_same_texts_for_the_same_seed_and_leaves_the_random_state_alone(backbone: Backbone):
    before = torch.random.get_rng_state()
    samples = written_samples(backbone, 3, seed=5)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert samples == written_samples(backbone, 3, seed=5)
    assert [s.text for s in samples] != [s.text for s in written_samples(backbone, 3, seed=6)]
    assert len({s.text for s in samples}) == 3
    assert all(s.label == 1 for s in samples)


def test_the_opening_is_told_by_the_source_and_is_not_in_the_text(backbone: Backbone):
    samples = written_samples(backbone, len(OPENINGS) + 1, seed=0)
    for sample, opening in zip(samples, (*OPENINGS, OPENINGS[0]), strict=True):
        assert sample.source == f'written by tiny: "{" ".join(opening.split()[:3])} ..."'
        assert opening not in sample.text
    assert samples[0].text != samples[-1].text  # one opening, two texts


def test_the_model_is_given_each_opening_whole_with_its_padding_masked(backbone: Backbone):
    alone = [backbone.encode([opening], MAX_NEW_TOKENS)[0].token_ids for opening in OPENINGS[:2]]
    seen = []
    hook = backbone.model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append((kwargs["input_ids"], kwargs["attention_mask"])), with_kwargs=True
    )
    written_samples(backbone, 2, seed=0)
    hook.remove()
    ids, mask = seen[0]
    for row, expected in enumerate(alone):
        assert ids[row][mask[row].bool()].tolist() == expected.tolist()
        assert mask[row].tolist() == sorted(mask[row].tolist())  # all padding comes first


def test_the_demo_scores_both_kinds_and_tells_of_each_stage(backbone: Backbone):
    detector = CalibratedDetector(
        ZERO_SHOT["fast-detect-gpt"](), Calibration(np.linspace(-5, 5, 99), {}), "tiny", {}, None, {}
    )
    said: list[str] = []
    result = run_demo(Scorer(detector, Extractor(backbone), fpr=0.1), texts=2, seed=0, say=said.append)
    assert [row.sample.label for row in result.rows] == [0, 0, 1, 1]
    assert said[1:] == ["writing 2 texts with tiny (seed 0)...", "scoring 4 texts with fast-detect-gpt..."]
    scores = [row.score for row in result.rows]
    assert result.auroc == np.mean([(m > h) + (m == h) / 2 for m in scores[2:] for h in scores[:2]])
    assert all(row.is_machine == (row.p_value <= 0.1) for row in result.rows)


def test_the_command_prints_a_row_for_each_text_and_what_was_flagged(capsys: pytest.CaptureFixture[str]):
    rows = [
        ScoredSample(Sample("argparse docstring", "Command [line] parsing.", 0), 151, -2.5, 0.75, False),
        ScoredSample(Sample('written by tiny: "Once ..."', "upon a time", 1), 149, 3.25, 0.005, True),
    ]
    _print(DemoResult(rows, 0.01, 1.0))
    lines = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    assert cells == [
        ["argparse docstring", "151", "-2.500", "0.7500", "not flagged", "Command [line] parsing."],
        ['written by tiny: "Once ..."', "149", "3.250", "0.0050", "machine", "upon a time"],
    ]
    assert lines[-2:] == [
        "Flagged as machine-written, where 1.00% of human texts may be: 0 of 1 human texts, 1 of 1 machine texts.",
        "AUROC of these 2 texts: 1.000",
    ]


@pytest.mark.slow
def test_pawn_demo_scores_eight_texts_of_each_kind(backbone_home: Path):
    script = "from pipelines.cli import main; main()"
    run = subprocess.run([sys.executable, "-c", script, "demo"], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert len(re.findall(r"^│ \S+ docstring ", run.stdout, re.MULTILINE)) == 8
    assert len(re.findall(r"^│ written by smollm2-135m: ", run.stdout, re.MULTILINE)) == 8
    assert re.search(r"may be: \d of 8 human texts, \d of 8 machine texts\.", run.stdout)
    # Sixteen texts measure nothing, and sampling differs between processors: tests/e2e/test_shipped.py judges quality.
    assert 0 <= float(run.stdout.rsplit(" ", 1)[1]) <= 1
