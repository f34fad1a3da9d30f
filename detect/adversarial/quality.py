"""How good written texts are: perplexity, word order, variety, repetition, meaning; and was a detector evaded."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from tokenizers import Tokenizer

from features.backbone import Backbone, load_tokenizer
from features.documents import canonical_text
from features.errors import BackboneError
from features.extractor import DEFAULT_MAX_LENGTH, batch_by_length
from features.registry import ENCODERS, resolve

DEFAULT_ENCODER = next(iter(ENCODERS))
TOKEN_BUDGET = 2_048
"""Padded tokens in a batch."""

HEAD_ROWS = 256
"""Rows projected onto the vocabulary at a time."""


def distinct(texts: Sequence[str], n: int) -> float:
    """Different n-grams of words over all n-grams of some texts, in (0, 1] (Li et al. 2016, 1510.03055).

    It falls with the amount of text: compare equally many texts of equal length. NaN where there is no n-gram.
    """
    grams = [gram for text in texts for gram in _grams(text, n)]
    return len(set(grams)) / len(grams) if grams else float("nan")


def repetition(texts: Sequence[str], n: int = 4) -> float:
    """Mean share of a text's n-grams of words that came before in the same text, in [0, 1).

    A text of fewer than n words repeats nothing.
    """
    shares = []
    for text in texts:
        grams = _grams(text, n)
        shares.append(1 - len(set(grams)) / len(grams) if grams else 0.0)
    return float(np.mean(shares)) if shares else float("nan")


def _grams(text: str, n: int) -> list[tuple[str, ...]]:
    words = text.casefold().split()
    return [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]


def perplexity(backbone: Backbone, wholes: Sequence[str], prompts: Sequence[str]) -> float:
    """Perplexity of what follows the prompts: exp(`mean_surprisal`)."""
    return math.exp(mean_surprisal(backbone, wholes, prompts))


@torch.inference_mode()
def mean_surprisal(backbone: Backbone, wholes: Sequence[str], prompts: Sequence[str]) -> float:
    """Mean surprisal, nats a token, of what follows the prompts, over all tokens of all texts.

    Any language model can judge any generator's texts: it reads characters, and its own tokens that end after the
    prompt count. NaN where none does.

    Args:
        backbone: the judge.
        wholes: prompts with their continuations.
        prompts: the prompts alone, in canonical form.
    """
    encodings = backbone.encode(wholes, DEFAULT_MAX_LENGTH)
    total, count = 0.0, 0
    for batch in batch_by_length([max(len(encoding.token_ids), 1) for encoding in encodings], TOKEN_BUDGET):
        rows = [torch.from_numpy(encodings[index].token_ids).long() for index in batch]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(backbone.device)  # (batch, seq)
        if ids.shape[1] < 2:
            continue
        hidden = backbone.hidden_states(ids)
        scored = torch.zeros(ids.shape, dtype=torch.bool)
        for row, index in enumerate(batch):
            ends = torch.from_numpy(encodings[index].offsets[1:, 1].copy())
            scored[row, : len(ends)] = ends > len(prompts[index])  # position i predicts token i + 1
        kept = scored.to(ids.device)
        states, targets = hidden[kept], ids.roll(-1, 1)[kept]  # (rows, hidden), (rows,)
        for start in range(0, len(states), HEAD_ROWS):
            logits = backbone.logits(states[start : start + HEAD_ROWS]).float()
            total += float(
                torch.nn.functional.cross_entropy(logits, targets[start : start + HEAD_ROWS], reduction="sum")
            )
        count += len(states)
    return total / count if count else float("nan")


def disordered(text: str, seed: int) -> str:
    """The words of a text in random order; punctuation stays with its word."""
    return " ".join(np.random.default_rng(seed).permutation(text.split()).tolist())


def word_order(written: float, shuffled: float) -> float:
    """Share of the surprisal of shuffled words that their order takes away: at most 1, 0 for word salad.

    Rare words are dear in any order, so the share does not follow how rare a vocabulary is. It sees whether words fit
    their neighbours, as far as the language model does; whether sentences fit each other is `MeaningEncoder.coherence`.

    Args:
        written: mean surprisal of texts as they are (`mean_surprisal`).
        shuffled: of the same texts `disordered`, after the same prompts.
    """
    return 1 - written / shuffled if shuffled else float("nan")


class MeaningEncoder:
    """Sentence vectors by mean pooling of an encoder's last states (Reimers and Gurevych 2019, 1908.10084)."""

    def __init__(self, model: Any, tokenizer: Tokenizer, max_length: int) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.max_length = max_length

    @classmethod
    def load(cls, name: str = DEFAULT_ENCODER, *, device: str | None = None) -> Self:
        """An encoder by registered name, folder or hub id.

        Raises:
            BackboneError: when there is none of that name, or it does not load.
        """
        import transformers  # 2 s to import

        files = resolve(name, purpose="classification")
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        transformers.utils.logging.disable_progress_bar()
        level = transformers.utils.logging.get_verbosity()
        transformers.utils.logging.set_verbosity_error()
        try:
            model = transformers.AutoModel.from_pretrained(
                files.path, use_safetensors=True, local_files_only=True, trust_remote_code=False, dtype=torch.float32
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise BackboneError(f"{files.name} does not load as an encoder: {str(error).splitlines()[0]}") from error
        finally:
            transformers.utils.logging.set_verbosity(level)
        limit = getattr(model.config, "max_position_embeddings", DEFAULT_MAX_LENGTH)
        return cls(model.to(device).eval(), load_tokenizer(files.path), min(256, limit))

    @torch.inference_mode()
    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of unit length, (n, d) float32; of zeros for a text without a token."""
        self.tokenizer.enable_truncation(self.max_length)
        tokens = [encoding.ids for encoding in self.tokenizer.encode_batch([canonical_text(text) for text in texts])]
        found = np.zeros((len(texts), int(self.model.config.hidden_size)), dtype=np.float32)
        for batch in batch_by_length([max(len(ids), 1) for ids in tokens], TOKEN_BUDGET):
            batch = [index for index in batch if tokens[index]]
            if not batch:
                continue
            rows = [torch.tensor(tokens[index]) for index in batch]
            ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)  # (batch, seq)
            lengths = torch.tensor([len(row) for row in rows])
            mask = (torch.arange(ids.shape[1])[None] < lengths[:, None]).to(self.model.device)
            states = self.model(input_ids=ids.to(self.model.device), attention_mask=mask.long()).last_hidden_state
            mean = (states.float() * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)  # (batch, d)
            found[batch] = torch.nn.functional.normalize(mean, dim=-1).cpu().numpy()
        return found

    def similarity(self, texts: Sequence[str], others: Sequence[str]) -> float:
        """Mean cosine of texts with their counterparts, in [-1, 1]."""
        return float((self.vectors(texts) * self.vectors(others)).sum(-1).mean())

    def coherence(self, texts: Sequence[str]) -> float:
        """Mean cosine of the first half of each text's words with the second, in [-1, 1]; 0 of one without two words.

        It falls where a text loses its thread, which a language model's surprisal does not tell: the texts that a small
        model draws from its own distribution are as likely to it as human ones, and stray from sentence to sentence.
        Compare texts of equal length.
        """
        words = [text.split() for text in texts]
        first = [" ".join(own[: len(own) // 2]) for own in words]
        return self.similarity(first, [" ".join(own[len(own) // 2 :]) for own in words])


@dataclass(frozen=True)
class Quality:
    """Figures of some continuations; equally many, equally long ones are comparable.

    Attributes:
        perplexity: under the generator before it was tuned.
        judge_perplexity: under another language model, where one judges.
        order: `word_order` under the generator before it was tuned.
        distinct_1: different words over all words; distinct_2, distinct_3: the same of pairs and triples.
        distinct_2: see distinct_1.
        distinct_3: see distinct_1.
        repetition: mean share of repeated 4-grams.
        coherence: likeness of meaning of the two halves of a text (`MeaningEncoder.coherence`).
        similarity: to the human continuations of the same prompts; None for these themselves.
        words: mean number.
        unscored: share of texts that the attacked detector gives no score, such as empty ones.
    """

    perplexity: float
    judge_perplexity: float | None
    order: float
    distinct_1: float
    distinct_2: float
    distinct_3: float
    repetition: float
    coherence: float
    similarity: float | None
    words: float
    unscored: float


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When texts count as still good, and a detector as evaded.

    "Usual" is the range that the human continuations and those of the generator before its tuning span.

    The limits of order and coherence lie about halfway between human continuations and controls that
    `benchmarks.fluency` makes: with one word in ten displaced, order falls to 0.76 of the human value; in texts that
    the untuned generator draws at temperature 1, which are as likely and as orderly as human ones but stray, coherence
    falls to 0.74 of it.

    Attributes:
        perplexity: most that a perplexity may be of the highest usual one.
        perplexity_floor: least that it may be of the lowest usual one: below, texts are stuck in a few phrases.
        order: least that the share of surprisal saved by word order may be of the lowest usual one.
        repetition: most that may be added to the highest usual share of repeated 4-grams.
        distinct: least that distinct-2 may be of the lowest usual one.
        coherence: least that the likeness of a text's halves may be of the lowest usual one.
        similarity: most that the similarity of meaning may lose.
        words: least that the mean number of words may be of the lowest usual one.
        unscored: largest share of texts without a score.
        auroc: least that AUROC must fall for a detector to count as evaded.
    """

    perplexity: float = 1.5
    perplexity_floor: float = 0.5
    order: float = 0.85
    repetition: float = 0.05
    distinct: float = 0.8
    coherence: float = 0.85
    similarity: float = 0.1
    words: float = 0.7
    unscored: float = 0.05
    auroc: float = 0.05


@dataclass(frozen=True)
class Verdict:
    """What a fine-tuning did to a detector.

    Attributes:
        word: "evaded", "rubbish" (it fell, but so did the texts), "resisted", or "resisted-rubbish".
        broken: the rules of quality that the texts broke, in words.
        auroc: of the detector, after.
        fall: of the AUROC since before.
    """

    word: str
    broken: tuple[str, ...]
    auroc: float
    fall: float

    @property
    def sentence(self) -> str:
        """For people."""
        change = f"AUROC {'fell' if self.fall >= 0 else 'rose'} by {abs(self.fall):.3f} to {self.auroc:.3f}"
        reasons = "; ".join(self.broken)
        return {
            "evaded": f"The detector was evaded: {change}, and the texts stayed within the limits of quality.",
            "rubbish": f"The text became rubbish: {change}, but {reasons}.",
            "resisted": f"The detector was not evaded: {change}; the texts stayed within the limits of quality.",
            "resisted-rubbish": f"The detector was not evaded ({change}), and the text became rubbish: {reasons}.",
        }[self.word]


def judge(
    before_auroc: float,
    after_auroc: float,
    human: Quality,
    before: Quality,
    after: Quality,
    limits: Limits | None = None,
) -> Verdict:
    """Tell a detector that was evaded from one whose score fell because the text became rubbish.

    A NaN figure of the texts after counts as broken. AUROC that cannot be had (no text has a score) counts as 0.5.
    """
    limits = limits or Limits()
    found = 0.5 if np.isnan(after_auroc) else after_auroc
    fall = before_auroc - found
    broken = tuple(_broken(human, before, after, limits))
    fell = fall >= limits.auroc
    word = ("rubbish" if broken else "evaded") if fell else ("resisted-rubbish" if broken else "resisted")
    return Verdict(word, broken, found, fall)


def _broken(human: Quality, before: Quality, after: Quality, limits: Limits) -> list[str]:
    found = []

    def at_most(name: str, value: float, limit: float) -> None:
        if not value <= limit:
            found.append(f"{name} is {value:.3g}, above {limit:.3g}")

    def at_least(name: str, value: float, limit: float) -> None:
        if not value >= limit:
            found.append(f"{name} is {value:.3g}, below {limit:.3g}")

    for name, values in (
        ("perplexity", (human.perplexity, before.perplexity, after.perplexity)),
        ("the judge's perplexity", (human.judge_perplexity, before.judge_perplexity, after.judge_perplexity)),
    ):
        known = [value for value in values if value is not None]
        if len(known) == len(values):
            at_most(name, known[2], limits.perplexity * max(known[:2]))
            at_least(name, known[2], limits.perplexity_floor * min(known[:2]))
    at_least("share of surprisal saved by word order", after.order, limits.order * min(human.order, before.order))
    at_most("repetition", after.repetition, max(human.repetition, before.repetition) + limits.repetition)
    at_least("distinct-2", after.distinct_2, limits.distinct * min(human.distinct_2, before.distinct_2))
    coherence = min(human.coherence, before.coherence)
    at_least("likeness of a text's halves", after.coherence, limits.coherence * coherence)
    at_least("similarity of meaning", after.similarity or 0.0, (before.similarity or 0.0) - limits.similarity)
    at_least("words a text", after.words, limits.words * min(human.words, before.words))
    at_most("share of texts without a score", after.unscored, limits.unscored)
    return found
