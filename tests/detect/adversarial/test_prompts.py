import math
from dataclasses import replace

import pytest

from detect.adversarial.prompts import Prompt, cut_prompts, share_out
from features.backbone import Backbone
from features.errors import InputError, UsageError
from tests.detect.adversarial.generators import human_documents, tiny_generator


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return Backbone.load(tiny_generator(tmp_path_factory.mktemp("model")), device="cpu")


def test_prompt_and_continuation_are_the_beginning_of_the_text(backbone: Backbone):
    documents = human_documents(30)
    prompts = cut_prompts(documents, backbone, prompt_tokens=11, new_tokens=17)
    assert len(prompts) > 20
    for prompt in prompts:
        text = prompt.document.text
        assert text.startswith(f"{prompt.text} {prompt.human}")
        ids = backbone.encode([text], 512)[0].token_ids.tolist()
        assert [*prompt.token_ids, *prompt.human_ids] == ids[: len(prompt.token_ids) + 17]
        assert 2 <= len(prompt.token_ids) <= 11
        assert len(prompt.human_ids) == 17


def test_a_prompt_ends_between_two_words(backbone: Backbone):
    for prompt in cut_prompts(human_documents(30), backbone, prompt_tokens=11, new_tokens=17):
        assert set(prompt.text.split()) <= set(prompt.document.text.split())


def test_machine_texts_and_short_texts_give_no_prompt(backbone: Backbone):
    machine = [replace(document, label=1) for document in human_documents(5)]
    assert cut_prompts([*machine, *human_documents(5, words=4)], backbone, prompt_tokens=5, new_tokens=50) == []


def test_a_source_gives_one_prompt(backbone: Backbone):
    documents = human_documents(10)
    same = [replace(document, id=f"again-{document.id}") for document in documents]
    regrouped = [replace(document, group="toy/a/b/0") for document in human_documents(10, seed=5)]
    prompts = cut_prompts([*documents, *same], backbone, prompt_tokens=9, new_tokens=20)
    assert (
        len({prompt.document.id for prompt in prompts})
        == len(prompts)
        == len(cut_prompts(documents, backbone, prompt_tokens=9, new_tokens=20))
    )
    assert len(cut_prompts(regrouped, backbone, prompt_tokens=9, new_tokens=20)) <= 1


def test_prompts_too_short_to_mean_anything_are_refused(backbone: Backbone):
    with pytest.raises(UsageError, match="prompts of at least 2 tokens, got 1"):
        cut_prompts(human_documents(3), backbone, prompt_tokens=1, new_tokens=20)


def parts_of(prompts: list[Prompt], seed: int = 0) -> dict[str, list[Prompt]]:
    return share_out(prompts, {"train": 8, "heldout": 5, "calibration": 3}, seed)


def test_parts_have_their_counts_and_share_no_group(backbone: Backbone):
    prompts = cut_prompts(human_documents(80), backbone, prompt_tokens=9, new_tokens=20)
    parts = parts_of(prompts)
    assert {name: len(part) for name, part in parts.items()} == {"train": 8, "heldout": 5, "calibration": 3}
    groups = [prompt.document.group for part in parts.values() for prompt in part]
    assert len(set(groups)) == 16
    assert parts_of(prompts) == parts
    assert parts_of(prompts, seed=1) != parts


def test_too_few_texts_are_an_error_that_counts_them(backbone: Backbone):
    prompts = cut_prompts(human_documents(9), backbone, prompt_tokens=9, new_tokens=20)
    with pytest.raises(InputError, match=rf"expected 16 human texts .* found {len(prompts)} .*ask for fewer"):
        parts_of(prompts)
    assert math.isclose(len(prompts), 9, abs_tol=3)
