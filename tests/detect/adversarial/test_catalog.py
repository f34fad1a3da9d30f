"""Every attack by its name: what all of them promise, and what is refused."""

import subprocess
import sys

import pytest

from detect.adversarial.catalog import _MAKERS, ENTRIES, NOTHING, attack_entry, attack_named
from features.errors import UsageError
from tests.detect.adversarial.attacked import WITHOUT, attacked, document

OFFLINE = [entry.name for entry in ENTRIES if entry.needs == NOTHING]
TEXT = (
    'The color of the 12 apples was red, but a child would organize an apple party in 2019. "Really?" Mr. Smith said.\n'
    "They were definitely going to receive the money because it was theirs; their government believed it. The end.\n"
)
TEXTS = [TEXT, "Another text, which has a theater and 3 words more. It is here.", "No", "", " \n", "日本語。"]

each_offline = pytest.mark.parametrize("name", OFFLINE)


def test_every_entry_has_a_maker_and_names_are_unique() -> None:
    assert [entry.name for entry in ENTRIES] == list(_MAKERS)


def test_the_catalog_imports_nothing_heavy() -> None:
    script = "import sys, detect.adversarial.catalog; print(*{'torch', 'numpy', 'transformers'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


@each_offline
def test_the_usual_strength_changes_the_text(name: str) -> None:
    assert attacked(name, TEXT * 3, attack_entry(name).strength) != [TEXT * 3]


@each_offline
def test_strength_0_changes_nothing(name: str) -> None:
    assert attacked(name, TEXTS, 0.0) == TEXTS


@each_offline
def test_the_same_document_strength_and_seed_give_the_same_text_in_any_company(name: str) -> None:
    strength = attack_entry(name).strength
    assert attacked(name, TEXTS, strength)[:2] == [attacked(name, text, strength)[0] for text in TEXTS[:2]]


@each_offline
def test_texts_without_anything_to_change_come_back_one_for_one(name: str) -> None:
    assert attacked(name, "", 1.0) == [""]
    assert len(attacked(name, TEXTS, 1.0)) == len(TEXTS)


@each_offline
def test_nobody_was_asked(name: str) -> None:
    assert attack_named(name, WITHOUT).apply([document(TEXT)], 0.5, 0)[0].queries == 0


@pytest.mark.parametrize("strength", [-0.1, 1.5])
def test_a_strength_that_means_nothing_is_refused(strength: float) -> None:
    expected = rf"homoglyph has a strength from 0 to 1 \(share of the letters that have a twin\), got {strength}"
    with pytest.raises(UsageError, match=expected):
        attacked("homoglyph", TEXT, strength)


def test_an_unknown_attack_is_told_what_is_like_it() -> None:
    with pytest.raises(UsageError, match=r"no attack named 'homoglyf'; did you mean homoglyph\? Known: homoglyph, "):
        attack_named("homoglyf", WITHOUT)
    with pytest.raises(UsageError, match="no attack named 'zzz'; Known: homoglyph"):
        attack_named("zzz", WITHOUT)
