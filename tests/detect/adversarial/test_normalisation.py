"""The defence: what it undoes, and the real text that it must leave alone."""

import random

import pytest

from detect.adversarial.normalisation import normalised
from detect.adversarial.word_lists import word_list
from tests.detect.adversarial.attacked import attacked

ENGLISH = (
    "The quick brown fox jumps over a lazy dog, as we saw in 2019. A café in Zürich, so nice; I see a cow or an ox. "
    "“Quite so,” said O'Neil: vice, voice, you, us.\n\nNew line - and   spaces."
)
ORDINARY = {
    "english": ENGLISH,
    "russian": "Он сказал, что у нас в Москве хорошо. А с собакой? Вот так: СССР, США и сор.",
    "ukrainian": "Її мова — українська, і вона росте. Я є, ти є, хор і рис.",
    "greek": "Το νερό και ο ήλιος. Οι άνθρωποι, χορός, ΑΒΓ, το α και το ω.",
    "bulgarian in english": "The word хорошо means good, and страна с гора is odd; she said «А у нас в Софии».",
    "science": "The energy hν of a photon, χ² = 3, the angle α, 5 μm, ρ and kΩ, Δx, γ-ray, β-carotene, σ(ν).",
    "armenian": "Սա հայերեն տեքստ է, ու այն լավն է։",
    "turkish": "Işık ve ılık su, İstanbul'da güzel bir gün.",
    "vietnamese": "Tiếng Việt là ngôn ngữ của người Việt.",
    "persian": "می‌خواهم کتاب‌های خوب بخوانم.",
    "hebrew": "שלום \u200fABC\u200e עולם",
    "hindi": "क्‍या आप हिन्दी बोलते हैं? क्ष",
    "thai": "ภาษา\u200bไทย\u200bสวยงาม",
    "khmer": "ភាសា\u200bខ្មែរ",
    "chinese": "他说：“ＮＨＫ的节目很好。”　对吗？",
    "japanese": "ＡＢＣ株式会社は１０月に、カフェを開く。葛\U000e0100城",
    "korean": "한국어 텍스트입니다. ＯＫ!",
    "mongolian": "ᠮᠣᠩᠭᠣᠯ ᠪᠢᠴᠢᠭ᠌",
    "emoji": "I ❤️ this 👩‍👩‍👧‍👦 👍🏽 🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f 1️⃣ ™ ½ №5",
    "maths": "ℝ and 𝑥 ∈ ℕ, H₂O, x², 3 × 10⁵, Ångström",
    "phonetics": "/ɡʊd/ and [ˈkæt]",
}


@pytest.mark.parametrize("text", ORDINARY.values(), ids=ORDINARY)
def test_ordinary_text_stays(text: str) -> None:
    assert normalised(text) == text


@pytest.mark.parametrize("strength", [0.1, 0.5, 1.0])
def test_homoglyphs_are_undone(strength: float) -> None:
    for seed in range(20):
        assert normalised(attacked("homoglyph", ENGLISH, strength, seed)[0]) == ENGLISH


@pytest.mark.parametrize("strength", [0.2, 1.0])
def test_zero_width_spaces_are_undone(strength: float) -> None:
    assert normalised(attacked("zero_width_space", ENGLISH, strength)[0]) == ENGLISH


@pytest.mark.parametrize(
    "invisible",
    ["\u200c", "\u200d", "\u2060", "\ufeff", "\u00ad", "\u202e", "\u180e", "\ufe0f", "\U000e0041", "\u3164"],
)
def test_invisible_characters_in_english_go(invisible: str) -> None:
    assert normalised(invisible.join("plain text")) == "plain text"


@pytest.mark.parametrize(
    ("tricky", "expected"),
    [
        ("𝗧𝗵𝗶𝘀 𝗶𝘀 𝗮 𝘁𝗲𝘀𝘁", "This is a test"),
        ("ⓗⓔⓛⓛⓞ", "hello"),
        ("ｆｕｌｌ width", "full width"),
        ("ﬁnal oﬃce", "final office"),
        ("one\u00a0two\u2009three\u2800four", "one two three four"),
        ("cafe\u0301", "café"),
        ("Тhe Νew Yоrk", "The New York"),
        ("She said а word", "She said a word"),
        ("the nαtural wοrld", "the natural world"),
        ("cafе\u0301 here", "café here"),
    ],
)
def test_other_tricks_are_undone(tricky: str, expected: str) -> None:
    assert normalised(tricky) == expected


def test_a_foreign_word_of_lookalikes_alone_among_latin_words_is_lost() -> None:
    assert normalised("The word сор means litter.") == "The word cop means litter."
    assert normalised("The words это сор mean litter.") == "The words это сор mean litter."


def test_a_lookalike_is_real_beside_a_foreign_word_however_many_lookalikes_are_between() -> None:
    text = "Many plain words of a Latin text stand here: {} end of it, and these are more of them."
    for run in ("это " + "сор " * 3, "сор " * 3 + "это"):
        assert normalised(text.format(run)) == text.format(run)
    assert normalised(text.format("сор " * 3)) == text.format("cop " * 3)


def test_it_gives_twice_what_it_gives_once() -> None:
    rng = random.Random(0)
    letters = [twin for twins in word_list("confusables").values() for twin in twins]
    pool = [
        *letters,
        *"abcdefgh ijk. \n",
        *"йжλπ한กข",
        *"\u200b\u200c\u200d\u00a0\ufe0f\u0301\u202e𝐚𝐛ﬁＡ⠀❤ש",
        "\U000e0041",
    ]
    for _ in range(500):
        once = normalised("".join(rng.choices(pool, k=rng.randrange(40))))
        assert normalised(once) == once


def test_no_letter_is_the_twin_of_two() -> None:
    twins = [twin for row in word_list("confusables").values() for twin in row]
    assert len(twins) == len(set(twins))


def test_every_homoglyph_of_the_attack_is_known_to_the_defence() -> None:
    known = word_list("confusables")
    assert [twin for letter, row in word_list("homoglyphs").items() for twin in row if twin not in known[letter]] == []


def test_an_empty_text_stays_empty() -> None:
    assert normalised("") == ""
