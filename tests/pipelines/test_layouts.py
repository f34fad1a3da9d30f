"""Every layout on files in exactly the form of its release."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from features.errors import InputError, UsageError
from pipelines.data_cards import PACKAGED_CARDS, DataCard, find_card
from pipelines.layouts import LAYOUTS, LabelledText, Rejected, files_of, rows_of
from pipelines.layouts.tables import mage_source
from tests.pipelines import layout_files as made

Texts = list[LabelledText]


def card(name: str) -> DataCard:
    return find_card(name, [PACKAGED_CARDS])


def read(name: str, *sources: Path) -> tuple[Texts, list[Rejected]]:
    found = list(rows_of(card(name), files_of(card(name), [str(source) for source in sources])))
    texts = [row for row in found if isinstance(row, LabelledText)]
    return texts, [row for row in found if isinstance(row, Rejected)]


def facts(texts: Texts, *names: str) -> list[tuple[object, ...]]:
    return [tuple(getattr(text, name) for name in names) for text in texts]


RELEASES: dict[str, Callable[[Path], Path]] = {
    "mage": made.write_mage,
    "raid": made.write_raid,
    "detectrl_release": made.write_detectrl,
    "outfox_release": made.write_outfox,
    "fastdetectgpt_release": made.write_fast_detectgpt,
    "m4": made.write_m4,
    "m4gt_bench": made.write_m4gt,
    "hc3": made.write_hc3,
    "ghostbuster": made.write_ghostbuster,
}


def test_every_card_of_a_release_is_read_here_and_every_layout_has_a_card():
    names = {path.stem for path in PACKAGED_CARDS.glob("*.md")}
    assert names == set(RELEASES) | {"detectrl", "fastdetect_main", "outfox"}
    assert {card(name).layout for name in names} == set(LAYOUTS) - {"table"}


@pytest.mark.parametrize("name", RELEASES)
def test_both_labels_of_every_release_are_found_and_human_texts_have_no_generator(name: str, tmp_path: Path):
    texts, _ = read(name, RELEASES[name](tmp_path))
    assert {text.label for text in texts} == {0, 1}
    assert all((text.generator == "human") == (text.label == 0) for text in texts)
    assert all(text.split and text.pair_id and text.domain and text.attack for text in texts)


def test_a_release_given_to_the_card_of_its_converted_corpus_is_told_of_the_other_card(tmp_path: Path):
    with pytest.raises(InputError, match=r"none of its .* is named as the card says .*take the card of the release"):
        read("detectrl", made.write_detectrl(tmp_path))


# --- MAGE


def test_the_labels_of_mage_are_turned_round(tmp_path: Path):
    texts, rejected = read("mage", made.write_mage(tmp_path) / "train.csv")
    assert facts(texts, "label", "domain", "generator", "attack", "split", "pair_id") == [
        (0, "cmv", "human", "none", "train", "0"),
        (1, "cmv", "flan_t5_xl", "none", "train", "1"),
        (1, "sci_gen", "gpt-3.5-trubo", "none", "train", "2"),
    ]
    assert texts[0].text == "My view on tea,\nin two lines."
    assert rejected == []


def test_a_human_text_that_a_model_paraphrased_is_the_models_in_mage(tmp_path: Path):
    texts, _ = read("mage", made.write_mage(tmp_path) / "test_ood_set_gpt_para.csv")
    assert facts(texts, "label", "domain", "generator", "attack") == [
        (0, "cnn", "human", "none"),
        (1, "cnn", "gpt-3.5-trubo", "paraphrase"),
        (1, "cnn", "gpt4", "paraphrase"),
    ]


@pytest.mark.parametrize(
    ("src", "domain", "generator"),
    [
        ("xsum_machine_specified_opt_iml_max_1.3b", "xsum", "opt_iml_max_1.3b"),
        ("sci_gen_human", "sci_gen", "human"),
        ("roct_machine_topical__7B", "roct", "_7B"),
        ("dialogsum_gpt4", "dialogsum", "gpt4"),
        ("what", "unknown", "unknown"),
    ],
)
def test_the_source_of_a_mage_text_is_taken_apart(src: str, domain: str, generator: str):
    assert mage_source(src) == {"domain": domain, "generator": generator, "attack": "none"}


def test_a_testbed_of_mage_without_src_is_refused(tmp_path: Path):
    path = made.write_csv(tmp_path / "test_ood.csv", ("text", "label"), [("a text", 1)])
    with pytest.raises(InputError, match=r"test_ood\.csv has no field 'src'; it has \['label', 'text'\]"):
        read("mage", path)


def test_a_label_that_the_card_does_not_know_rejects_the_row(tmp_path: Path):
    path = made.write_csv(
        tmp_path / "train.csv", ("text", "label", "src"), [("a", 2, "cmv_human"), ("b", "", "cmv_human")]
    )
    texts, rejected = read("mage", path)
    assert texts == []
    assert [(row.place, row.reason) for row in rejected] == [("train.csv:1", "no_label"), ("train.csv:2", "no_label")]
    assert rejected[0].detail == "label '2', the card knows 0, 1"


# --- RAID


def test_rows_of_raid_that_go_back_to_one_human_text_are_one_source(tmp_path: Path):
    texts, rejected = read("raid", made.write_raid(tmp_path))
    assert facts(texts, "split", "label", "generator", "attack", "pair_id") == [
        ("extra", 1, "mistral-chat", "none", "c1"),
        ("train", 0, "human", "none", "a1"),
        ("train", 1, "gpt4", "none", "a1"),
        ("train", 1, "gpt4", "homoglyph", "a1"),
        ("train", 0, "human", "upper_lower", "a1"),
        ("train", 0, "human", "none", "b1"),
    ]
    assert {text.domain for text in texts} == {"books"}
    assert rejected == []


def test_the_test_texts_of_raid_are_refused_because_they_have_no_labels(tmp_path: Path):
    path = made.write_csv(tmp_path / "test.csv", ("id", "generation"), [("a1", "Who wrote this?")])
    with pytest.raises(
        InputError, match=r"test\.csv: RAID publishes its test texts without labels.*pawn score test\.csv"
    ):
        read("raid", path)


def test_a_row_of_raid_without_model_has_no_label(tmp_path: Path):
    row = made.raid_row("a1", "a1", "", "none", "Who wrote this?")
    _, rejected = read("raid", made.write_csv(tmp_path / "train.csv", made.RAID_COLUMNS, [row]))
    assert [found.reason for found in rejected] == ["no_label"]


# --- DetectRL


def test_detectrl_tells_the_domain_by_file_name_or_by_human_data_type(tmp_path: Path):
    texts, _ = read("detectrl_release", made.write_detectrl(tmp_path))
    assert facts(texts, "split", "domain", "label", "generator", "attack") == [
        ("multi_domains_yelp_review_test", "yelp_review", 0, "human", "none"),
        ("multi_domains_yelp_review_test", "yelp_review", 1, "Google-PaLM", "none"),
        ("multi_domains_yelp_review_test", "yelp_review", 1, "Llama-2-70b", "paraphrase_dipper_llm"),
        ("cross_length_20_test", "unknown", 1, "unknown", "adversarial_character_word_llm"),
        ("perturbation_attacks_human_test", "unknown", 0, "human", "perturbation_character_human"),
        ("perturbation_attacks_human_test", "unknown", 1, "ChatGPT", "none"),
        ("perturbation_attacks_human_test", "writing_prompt", 0, "human", "none"),
    ]


def test_what_is_no_object_with_a_text_is_rejected_in_detectrl(tmp_path: Path):
    good = made.detectrl_item("A text.", "human", "story", "ChatGPT")
    items = [
        good,
        "loose",
        {"text": "no label"},
        good | {"text": None},
        good | {"text": " "},
        good | {"label": "robot"},
    ]
    texts, rejected = read("detectrl_release", made.write(tmp_path / "x_test.json", json.dumps(items)))
    assert len(texts) == 1
    assert [(row.place, row.reason) for row in rejected] == [
        ("x_test.json:2", "invalid_row"),
        ("x_test.json:3", "invalid_row"),
        ("x_test.json:4", "null"),
        ("x_test.json:5", "empty"),
        ("x_test.json:6", "no_label"),
    ]
    assert rejected[1].detail == "lacks label, data_type"


# --- OUTFOX


def test_the_essays_on_one_task_of_outfox_are_one_source(tmp_path: Path):
    texts, rejected = read("outfox_release", made.write_outfox(tmp_path))
    first = [text for text in texts if text.pair_id == "0"]
    assert sorted(facts(first, "label", "generator", "attack", "split")) == [
        (0, "human", "none", "test"),
        (1, "chatgpt", "dipper", "test"),
        (1, "chatgpt", "none", "test"),
        (1, "chatgpt", "outfox", "test"),
        (1, "text_davinci_003", "none", "test"),
    ]
    assert len(texts) == sum(map(len, made.OUTFOX_LISTS.values()))
    assert rejected == []


def test_dipper_attacks_of_outfox_keep_model_and_attack(tmp_path: Path):
    texts, _ = read("outfox_release", made.write_outfox(tmp_path))
    attacked = [text for text in texts if text.text == "There are many benefits to tea."]
    assert facts(attacked, "label", "generator", "attack", "split") == [(1, "chatgpt", "dipper", "test")]


def test_a_pickled_list_of_outfox_is_refused_with_the_command_that_converts_it(tmp_path: Path):
    folder = made.write_outfox(tmp_path)
    pickled = made.write(folder / "common/valid/valid_humans.pkl", "never read")
    with pytest.raises(
        InputError, match=r"valid_humans\.pkl is a pickle: reading one runs the code.*json\.dump\(pickle"
    ):
        read("outfox_release", folder)
    with pytest.raises(InputError, match="is a pickle"):
        read("outfox_release", pickled)
    made.write(pickled.with_suffix(".json"), '["An essay."]')
    texts, _ = read("outfox_release", folder)
    assert ("valid", "An essay.") in facts(texts, "split", "text")


def test_lists_of_outfox_may_be_csv_or_lines(tmp_path: Path):
    made.write_csv(tmp_path / "common/valid/valid_humans.csv", ("text",), [("One,\ntwo lines.",), ("Two.",)])
    made.write(tmp_path / "chatgpt/valid/valid_lms.txt", "First.\nSecond.\n")
    texts, _ = read("outfox_release", tmp_path)
    assert facts(texts, "pair_id", "label", "text") == [
        ("0", 1, "First."),
        ("1", 1, "Second."),
        ("0", 0, "One,\ntwo lines."),
        ("1", 0, "Two."),
    ]


# --- Fast-DetectGPT


def test_equal_places_of_fast_detectgpt_are_pairs(tmp_path: Path):
    texts, _ = read("fastdetectgpt_release", made.write_fast_detectgpt(tmp_path))
    assert facts(texts, "split", "pair_id", "label", "generator", "domain")[:3] == [
        ("xsum_gpt2-xl", "0", 0, "human", "xsum"),
        ("xsum_gpt2-xl", "0", 1, "gpt2-xl", "xsum"),
        ("xsum_gpt2-xl", "1", 0, "human", "xsum"),
    ]
    assert texts[-1].generator == "opt-2.7b"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"original": ["a"]}', "has no field 'sampled'"),
        ('{"original": ["a"], "sampled": []}', r"lists of equal length.*'original': 1, 'sampled': 0"),
        ('{"original": ["a"], "sampled": "b"}', r"lists of equal length.*'sampled': None"),
        ('{"original": ["a"', "is not JSON or is cut short"),
        ("[1]", "is a JSON list, expected an object"),
    ],
)
def test_a_file_of_fast_detectgpt_that_cannot_be_paired_is_refused(tmp_path: Path, content: str, message: str):
    with pytest.raises(InputError, match=message):
        read("fastdetectgpt_release", made.write(tmp_path / "xsum_m.raw_data.json", content))


# --- M4 and M4GT-Bench


def test_all_machine_texts_on_one_human_text_of_m4_are_one_source(tmp_path: Path):
    texts, rejected = read("m4", made.write_m4(tmp_path))
    arxiv = [text for text in texts if text.domain == "arxiv"]
    assert len({(text.split, text.pair_id) for text in arxiv}) == 1
    assert [text.generator for text in arxiv] == ["human", "gpt-3.5-turbo", "human", "flan-t5"]
    assert rejected == []


def test_m4_texts_may_be_lists_of_parts_or_lie_in_text(tmp_path: Path):
    texts, _ = read("m4", made.write_m4(tmp_path))
    by_domain = {(text.domain, text.label): text.text for text in texts}
    assert by_domain["peerread", 0] == "Good.\n\nAccept it."
    assert by_domain["peerread", 1] == "Bad.\n\nReject it."
    assert by_domain["reddit", 0] == "Why tea?"
    assert by_domain["id-newspaper", 0] == "Berita teh."


def test_a_line_of_m4_that_is_cut_short_and_a_missing_text_are_rejected(tmp_path: Path):
    good = json.dumps(made.m4_record("Human.", "Machine.", "m", 1))
    half = json.dumps(made.m4_record(None, "Machine again.", "m", 2))
    texts, rejected = read("m4", made.write(tmp_path / "arxiv_m.jsonl", f"{good}\n{half}\n{good[:30]}\n{{}}\n"))
    assert [text.text for text in texts] == ["Human.", "Machine.", "Machine again."]
    assert [(row.place, row.reason) for row in rejected] == [
        ("arxiv_m.jsonl:2 human_text", "null"),
        ("arxiv_m.jsonl:3", "invalid_row"),
        ("arxiv_m.jsonl:4", "invalid_row"),
    ]


def test_m4gt_labels_every_generator_as_machine(tmp_path: Path):
    texts, _ = read("m4gt_bench", made.write_m4gt(tmp_path))
    assert facts(texts, "split", "label", "generator", "domain", "pair_id") == [
        ("subtaskA_train_monolingual", 0, "human", "wikipedia", "0"),
        ("subtaskA_train_monolingual", 1, "chatGPT", "wikipedia", "1"),
        ("subtaskB_dev", 1, "bloomz", "wikihow", "9"),
    ]


def test_m4gt_rejects_a_label_that_contradicts_the_model(tmp_path: Path):
    rows = [{"text": "a", "label": 0, "model": "davinci"}, {"text": "b", "label": 1, "model": "human"}]
    texts, rejected = read("m4gt_bench", made.write_jsonl(tmp_path / "a.jsonl", rows))
    assert texts == []
    assert [(row.reason, row.detail) for row in rejected] == [
        ("label_conflict", "model 'davinci' is labelled human"),
        ("label_conflict", "model 'human' is labelled machine"),
    ]


def test_subtask_c_of_m4gt_is_refused(tmp_path: Path):
    path = made.write_jsonl(tmp_path / "subtaskC_train.jsonl", [{"id": "1", "text": "mixed", "label": 17}])
    with pytest.raises(InputError, match="neither model nor source: it seems to be of subtask C"):
        read("m4gt_bench", path)


# --- HC3


def test_answers_to_one_question_of_hc3_are_one_source_in_every_file(tmp_path: Path):
    texts, rejected = read("hc3", made.write_hc3(tmp_path))
    buying = {(text.split, text.pair_id) for text in texts if text.text in ("No.", "It depends on tea.")}
    assert len(buying) == 1
    assert len({text.pair_id for text in texts}) == 3
    assert facts(texts[:3], "label", "generator", "domain", "text") == [
        (0, "human", "finance", "Maybe ."),
        (0, "human", "finance", "No."),
        (1, "chatgpt", "finance", "It depends on tea."),
    ]
    assert rejected == []


def test_an_empty_answer_of_hc3_is_rejected_and_named(tmp_path: Path):
    record = {"question": "Q?", "human_answers": ["Yes.", ""], "chatgpt_answers": None}
    texts, rejected = read("hc3", made.write_jsonl(tmp_path / "finance.jsonl", [record]))
    assert len(texts) == 1
    assert [(row.place, row.reason) for row in rejected] == [
        ("finance.jsonl:1 human_answers[1]", "empty"),
        ("finance.jsonl:1 chatgpt_answers", "invalid_row"),
    ]


# --- Ghostbuster


def test_equal_numbers_of_ghostbuster_are_one_prompt_and_token_probabilities_are_no_texts(tmp_path: Path):
    folder = made.write_ghostbuster(tmp_path)
    texts, rejected = read("ghostbuster", folder)
    assert facts(texts, "domain", "pair_id", "label", "generator") == [
        ("essay", "3", 0, "human"),
        ("reuter", "AaNames/10", 1, "gpt"),
        ("reuter", "AaNames/10", 0, "human"),
        ("wp", "2", 1, "claude"),
        ("wp", "1", 1, "gpt"),
        ("wp", "1", 1, "gpt_prompt1"),
        ("wp", "1", 0, "human"),
    ]
    assert rejected == []
    skipped = files_of(card("ghostbuster"), [str(folder)]).skipped
    assert skipped == ["reuter/gpt/AaNames/headlines/10.txt", "wp/gpt/logprobs/1-ada.txt", "wp/prompts/1.txt"]


def test_the_folder_of_one_ghostbuster_domain_can_be_named_alone(tmp_path: Path):
    texts, _ = read("ghostbuster", made.write_ghostbuster(tmp_path) / "wp")
    assert {text.domain for text in texts} == {"wp"}


def test_an_empty_file_of_ghostbuster_is_rejected(tmp_path: Path):
    made.write(tmp_path / "wp/gpt/1.txt", "")
    (tmp_path / "wp/gpt/2.txt").write_bytes(b"caf\xe9")
    _, rejected = read("ghostbuster", tmp_path)
    assert [(row.place, row.reason) for row in rejected] == [
        ("wp/gpt/1.txt", "empty"),
        ("wp/gpt/2.txt", "invalid_utf8"),
    ]


# --- any of them


def test_a_damaged_table_is_an_error_and_not_a_short_corpus(tmp_path: Path):
    path = made.write(tmp_path / "train.csv", 'text,label,src\n"never closed,1,cmv_human\n')
    with pytest.raises(InputError, match=r"a quote opened .* is never closed"):
        read("mage", path)


def test_an_unknown_layout_is_an_error(tmp_path: Path):
    with pytest.raises(InputError, match=r"names the layout 'nope'; known are one_form, table"):
        list(rows_of(replace(card("mage"), layout="nope"), files_of(card("mage"), [str(made.write_mage(tmp_path))])))


def test_a_file_that_is_not_there_is_wrong_usage(tmp_path: Path):
    with pytest.raises(UsageError, match=r"nowhere does not exist; give the file or folder that you downloaded"):
        read("mage", tmp_path / "nowhere")
