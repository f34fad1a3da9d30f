from typing import Any

import pytest
import torch

from detect.adversarial.generation import SamplingSettings, sample
from detect.adversarial.policy import Policy
from detect.adversarial.prompts import Prompt
from features.errors import UsageError
from tests.detect.adversarial.generators import tiny_generator, tiny_prompts

SETTINGS = SamplingSettings(new_tokens=13, temperature=1.0, batch_size=4)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    return Policy.load(tiny_generator(tmp_path_factory.mktemp("model")), device="cpu")


@pytest.fixture(scope="module")
def prompts(policy: Policy) -> list[Prompt]:
    return tiny_prompts(policy.files, 7)


def test_the_seed_alone_decides_the_texts(policy: Policy, prompts: list[Prompt]):
    first = sample(policy.snapshot(), policy.tokenizer, prompts, SETTINGS, seed=1)
    torch.rand(3)
    assert sample(policy.snapshot(), policy.tokenizer, prompts, SETTINGS, seed=1) == first
    assert sample(policy.snapshot(), policy.tokenizer, prompts, SETTINGS, seed=2) != first


def test_the_global_random_state_is_left_alone(policy: Policy, prompts: list[Prompt]):
    before = torch.random.get_rng_state()
    sample(policy.snapshot(), policy.tokenizer, prompts[:2], SETTINGS, seed=1)
    assert torch.equal(before, torch.random.get_rng_state())


def test_every_text_has_the_tokens_asked_for_and_none_that_ends_it(policy: Policy, prompts: list[Prompt]):
    end = policy.adapted.config.eos_token_id
    for text in sample(policy.snapshot(), policy.tokenizer, prompts, SETTINGS, seed=3):
        assert len(text.token_ids) == 13
        assert end not in text.token_ids


def test_texts_are_canonical_printable_and_follow_their_prompt(policy: Policy, prompts: list[Prompt]):
    for prompt, text in zip(prompts, sample(policy.snapshot(), policy.tokenizer, prompts, SETTINGS, 4), strict=True):
        assert text.text == " ".join(text.text.split())
        assert all(c.isprintable() and c != "\ufffd" for c in text.text)
        assert text.whole.startswith(prompt.text)
        assert text.whole.endswith(text.text)


def test_company_does_not_move_a_text_where_nothing_is_random(policy: Policy, prompts: list[Prompt]):
    # Prompts differ in length, so those in company are padded; at this temperature the likeliest token is drawn.
    cold = SamplingSettings(new_tokens=5, temperature=1e-4, batch_size=7)
    assert len({len(prompt.token_ids) for prompt in prompts}) > 1
    model: Any = policy.snapshot().float()
    together = sample(model, policy.tokenizer, prompts, cold, seed=0)
    alone = [sample(model, policy.tokenizer, [prompt], cold, seed=0)[0] for prompt in prompts]
    assert together == alone
    policy.snapshot().to(next(policy.adapted.parameters()).dtype)


def test_progress_counts_texts(policy: Policy, prompts: list[Prompt]):
    told: list[tuple[int, int]] = []
    sample(policy.snapshot(), policy.tokenizer, prompts, SETTINGS, 0, lambda done, total: told.append((done, total)))
    assert told == [(4, 7), (7, 7)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"new_tokens": 0}, "new_tokens of at least 1, got 0"),
        ({"batch_size": 0}, "batch_size of at least 1, got 0"),
        ({"temperature": 0.0}, "temperature above 0, got 0.0"),
        ({"top_p": 1.5}, "top_p above 0 and at most 1, got 1.5"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str):
    with pytest.raises(UsageError, match=message):
        SamplingSettings(**settings)


def test_the_vocabulary_projection_is_given_rows_in_one_piece(policy: Policy, prompts: list[Prompt]):
    # From a view with gaps torch makes a copy of the weights for each row.
    model: Any = policy.snapshot()
    head, seen = model.get_output_embeddings(), []
    kept = head.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].is_contiguous()))
    sample(model, policy.tokenizer, prompts, SETTINGS, seed=0)
    kept.remove()
    assert seen
    assert all(seen)
    assert not head._forward_pre_hooks
