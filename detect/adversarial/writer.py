"""A language model that writes passages anew: causal by prompt, or from one sequence to another."""

import sys
from collections.abc import Sequence
from typing import Any, Self

import torch

from features.backbone import Backbone, native_dtype
from features.causal_lm import TransformersLM
from features.errors import BackboneError
from features.registry import BackboneFiles, resolve

PROMPT = "Rewrite the following text in your own words:\n\n{}"
PLAIN_PROMPT = "Text: {}\n\nThe same text in other words:"
"""For a causal model that knows no chat."""

PREFIX = "paraphrase: {}"
"""What T5 models fine-tuned to paraphrase are commonly given."""

TEMPERATURE, TOP_P = 0.7, 0.9
MORE_TOKENS = 1.5
"""How long an answer may be, in lengths of the question."""


class Writer:
    """A model of transformers with its tokenizer."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        """Put loaded parts together."""
        self._model = model
        self._tokenizer = tokenizer
        self._from_sequence = bool(model.config.is_encoder_decoder)
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        tokenizer.padding_side = "right" if self._from_sequence else "left"

    @classmethod
    def of_backbone(cls, backbone: Backbone) -> Self:
        """The backbone as a writer."""
        return cls(backbone.model, _tokenizer(backbone.files))

    @classmethod
    def named(cls, name: str) -> Self:
        """A model by registered name, directory or hub id.

        Raises:
            BackboneError: when it cannot be found or loaded, or does not write.
        """
        import transformers

        files = resolve(name, purpose="writing")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        config = transformers.AutoConfig.from_pretrained(files.path, local_files_only=True, trust_remote_code=False)
        if not config.is_encoder_decoder:
            return cls(TransformersLM.load(files.path, device, native_dtype(device)).model, _tokenizer(files))
        try:
            model = transformers.AutoModelForSeq2SeqLM.from_pretrained(
                files.path,
                dtype=native_dtype(device),
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise BackboneError(
                f"{files.path} does not load as a sequence-to-sequence model: {str(error).strip().splitlines()[0]}; "
                "expected config.json and matching *.safetensors"
            ) from error
        return cls(model.eval().requires_grad_(False).to(device), _tokenizer(files))

    def rewritten(self, passages: Sequence[str], *, seed: int) -> list[str]:
        """What the model writes for each passage, sampled in one batch; the caller's random state is left as it was.

        Nothing for a passage that is too long for the model's positions.
        """
        questions = [self._question(passage) for passage in passages]
        answers = [self._answer_tokens(passage) for passage in passages]
        taken = [i for i, (asked, most) in enumerate(zip(questions, answers, strict=True)) if self._room(asked) >= most]
        written = dict.fromkeys(range(len(passages)), "")
        if taken:
            chosen = [questions[i] for i in taken]
            room = self._room(max(chosen, key=len))
            found = self._sampled(chosen, min(max(answers[i] for i in taken), room), seed)
            written |= dict(zip(taken, found, strict=True))
        return list(written.values())

    def _answer_tokens(self, passage: str) -> int:
        """How long an answer may be."""
        return int(MORE_TOKENS * len(self._tokenizer(passage, add_special_tokens=False)["input_ids"])) + 1

    def _room(self, question: Sequence[int]) -> int:
        """Tokens that the model can write after a question; below 1 where it cannot even read it."""
        limit = getattr(self._model.config, "max_position_embeddings", None) or sys.maxsize
        if self._from_sequence:  # question and answer each have positions of their own
            return limit if len(question) <= limit else 0
        return limit - len(question)

    def _sampled(self, questions: Sequence[list[int]], new_tokens: int, seed: int) -> list[str]:
        inputs = self._tokenizer.pad({"input_ids": questions}, return_tensors="pt").to(self._model.device)
        with torch.random.fork_rng(devices=[self._model.device] if self._model.device.type == "cuda" else []):
            torch.manual_seed(seed)
            answers = self._model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                do_sample=True,
                temperature=TEMPERATURE,
                top_p=TOP_P,
                top_k=0,
                max_new_tokens=new_tokens,
                pad_token_id=self._tokenizer.pad_token_id,
            )
        start = 0 if self._from_sequence else inputs["input_ids"].shape[1]
        return [self._tokenizer.decode(answer[start:], skip_special_tokens=True) for answer in answers]

    def _question(self, passage: str) -> list[int]:
        if self._from_sequence:
            return list(self._tokenizer(PREFIX.format(passage))["input_ids"])
        if not self._tokenizer.chat_template:
            return list(self._tokenizer(PLAIN_PROMPT.format(passage))["input_ids"])
        chat = [{"role": "user", "content": PROMPT.format(passage)}]
        return list(self._tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False))


def _tokenizer(files: BackboneFiles) -> Any:
    import transformers

    return transformers.AutoTokenizer.from_pretrained(files.path, local_files_only=True, trust_remote_code=False)
