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

T5_TYPES = ("t5", "mt5", "umt5", "longt5", "switch_transformers")
"""Model types that learn their tasks by such a beginning; to BART or Pegasus it would be words to paraphrase."""
COMPUTED_POSITIONS = ("pegasus", "pegasus_x", "marian", "fsmt", "m2m_100", "xglm")
"""Model types whose positions are a formula, which files may leave out."""

TEMPERATURE, TOP_P = 0.7, 0.9
MORE_TOKENS = 1.5
"""How long an answer may be, in lengths of the question."""


class Writer:
    """A model of transformers with its tokenizer.

    A causal model is asked by a prompt, in a chat where it knows chats. A sequence-to-sequence model is given the
    passage alone, and "paraphrase: " before it where its type is of T5's family. DIPPER, a T5 as well, learned numbers
    before each passage instead ("lexical = 60, order = 40 <sent> ..."), which are not written here.
    """

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
            BackboneError: when it cannot be found or does not write, or its files are damaged.
        """
        import transformers

        files = resolve(name, purpose="writing")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        config = _loaded(transformers.AutoConfig, files, "a configuration", "a whole config.json")
        if not config.is_encoder_decoder:
            return cls(TransformersLM.load(files.path, device, native_dtype(device)).model, _tokenizer(files))
        return cls(_sequence_model(files, device), _tokenizer(files))

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
            prefixed = self._model.config.model_type in T5_TYPES
            return list(self._tokenizer(PREFIX.format(passage) if prefixed else passage)["input_ids"])
        if not self._tokenizer.chat_template:
            return list(self._tokenizer(PLAIN_PROMPT.format(passage))["input_ids"])
        chat = [{"role": "user", "content": PROMPT.format(passage)}]
        return list(self._tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False))


def _sequence_model(files: BackboneFiles, device: str) -> Any:
    import transformers

    model, info = _loaded(
        transformers.AutoModelForSeq2SeqLM,
        files,
        "a sequence-to-sequence model",
        "config.json and matching *.safetensors",
        dtype=native_dtype(device),
        use_safetensors=True,
        output_loading_info=True,
    )
    # transformers fills what is missing with random numbers, but for positions that are computed.
    computed = ("embed_positions.weight",) if model.config.model_type in COMPUTED_POSITIONS else ()
    if missing := sorted(name for name in info["missing_keys"] if not name.endswith(computed)):
        raise BackboneError(
            f"{files.path} lacks {len(missing)} weights of a {model.config.model_type} model that writes, {missing[0]} "
            "among them; save the whole sequence-to-sequence model, head included"
        )
    return model.eval().requires_grad_(False).to(device)


def _tokenizer(files: BackboneFiles) -> Any:
    import transformers

    whole = "a whole tokenizer.json with its tokenizer_config.json"
    tokenizer = _loaded(transformers.AutoTokenizer, files, "a tokenizer", whole)
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is None:
        raise BackboneError(
            f"{files.path} has a tokenizer without padding and end token; expected {whole}: fetch the model again"
        )
    return tokenizer


def _loaded(kind: Any, files: BackboneFiles, what: str, expected: str, **options: Any) -> Any:
    """What a class of transformers loads from a model's files.

    Raises:
        BackboneError: when it cannot.
    """
    try:
        return kind.from_pretrained(files.path, local_files_only=True, trust_remote_code=False, **options)
    except Exception as error:  # tokenizers raises Exception itself; transformers, whatever a damaged file trips
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise BackboneError(
            f"{files.path} does not load as {what}: {reason}; expected {expected}: fetch the model again"
        ) from error
