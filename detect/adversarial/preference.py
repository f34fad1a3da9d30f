"""Direct preference optimisation of a generator: pairs ranked by a detector, or human text over its own.

The first after Nicks et al., ICLR 2024 ("Language Model Detectors Are Easily Optimized Against"): of the continuations
of a prompt, the one that the detector finds most human is preferred to the one that it finds most machine-like (two
are drawn there; the extremes of a few more lie further apart). The second after arXiv 2505.24523: the human
continuation is preferred to the generator's, and no detector is asked. Both with TRL's DPOTrainer; the reference is
the generator without its adapters.
"""

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from detect.adversarial.critic import OnPoint
from detect.adversarial.generation import Continuation
from detect.adversarial.policy import Policy
from detect.adversarial.prompts import Prompt
from features.backbone import native_dtype
from features.errors import DetectorError, UsageError

CURVE = {"loss": "loss", "rewards/margins": "margin", "rewards/accuracies": "accuracy"}
"""TRL's names of what is logged, and ours."""


REFERENCE = "ref"
"""The adapter that TRL adds: a copy of the untrained one, which it takes the reference's probabilities from."""


@dataclass(frozen=True)
class Pair:
    """Two continuations of a prompt as token ids, the one preferred first."""

    prompt: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class PreferenceConfig:
    """The recipe. Nicks et al. train 100,000 pairs once; so few as fit on a processor are learnt several times.

    Attributes:
        drawings: continuations of each prompt that a detector ranks.
        epochs: passes over the pairs.
        batch_size: pairs in an optimiser's step.
        learning_rate: AdamW's at its highest; higher than for whole models, for adapters begin at zero.
        beta: DPO's; the higher, the closer to the reference.
        warmup: share of the steps in which the rate rises; after them it falls to 0 as a cosine.
        gradient_clip: largest norm of the gradient.
        seed: of the order.

    Raises:
        UsageError: naming the first setting that cannot be.
    """

    drawings: int = 4
    epochs: int = 3
    batch_size: int = 8
    learning_rate: float = 2e-4
    beta: float = 0.1
    warmup: float = 0.1
    gradient_clip: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.drawings < 2:
            raise UsageError(f"expected at least 2 drawings to rank, got {self.drawings}")
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"expected {name} of at least 1, got {getattr(self, name)}")
        for name in ("learning_rate", "beta", "gradient_clip"):
            if getattr(self, name) <= 0:
                raise UsageError(f"expected {name} above 0, got {getattr(self, name)}")
        if not 0 <= self.warmup < 1:
            raise UsageError(f"warmup is a share: expected 0 <= warmup < 1, got {self.warmup}")


def ranked_pairs(
    prompts: Sequence[Prompt], drawn: Sequence[Sequence[Continuation]], scores: Sequence[np.ndarray]
) -> list[Pair]:
    """Of each prompt, the continuation of the lowest score, the most human one, over that of the highest.

    A prompt whose continuations all score the same gives no pair.

    Args:
        prompts: of the continuations.
        drawn: two samplings or more, each with one continuation of each prompt.
        scores: of each sampling, (n,); a text without one (NaN) loses to any that has one.
    """
    table = np.stack([np.where(np.isfinite(values), values, np.inf) for values in scores])  # (drawings, n)
    best, worst = table.argmin(0), table.argmax(0)
    return [
        Pair(prompt.token_ids, drawn[best[index]][index].token_ids, drawn[worst[index]][index].token_ids)
        for index, prompt in enumerate(prompts)
        if table[best[index], index] < table[worst[index], index]
    ]


def human_pairs(prompts: Sequence[Prompt], own: Sequence[Continuation]) -> list[Pair]:
    """Pairs in which the human continuation is preferred to the generator's."""
    return [Pair(prompt.token_ids, prompt.human_ids, text.token_ids) for prompt, text in zip(prompts, own, strict=True)]


def check_trl() -> None:
    """UsageError where TRL is not installed."""
    try:
        import trl  # noqa: F401 (imported but unused)
    except ImportError as error:
        raise UsageError(f"this method needs TRL ({error}): pip install 'pawn-detect[redteam]'") from error


def train_dpo(
    policy: Policy,
    pairs: Sequence[Pair],
    config: PreferenceConfig,
    *,
    probe: OnPoint = lambda point: None,
    on_point: OnPoint = lambda point: None,
) -> list[dict[str, float]]:
    """Fine-tune a generator's adapters in place on preferences.

    Args:
        policy: the generator.
        pairs: what it is to prefer.
        config: the recipe.
        probe: called with {"step"} before the first step and after each epoch, to look at what the generator writes.
        on_point: told of each point of the curve.

    Returns:
        A point a step: step, loss, margin (between the rewards of the two), accuracy (share of pairs that it orders
        right).

    Raises:
        UsageError: when TRL is not installed.
        DetectorError: when there is no pair, or the training diverges.
    """
    check_trl()
    import transformers

    if not pairs:
        raise DetectorError("no pair to learn from: every two continuations score the same; give another --detector")
    curve: list[dict[str, float]] = []
    with TemporaryDirectory() as folder, _quiet():
        trainer = _trainer(policy, pairs, config, Path(folder))
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.add_callback(_watcher(curve, probe, on_point))
        probe({"step": 0.0})
        trainer.train()
        if REFERENCE in policy.adapted.peft_config:
            policy.adapted.delete_adapter(REFERENCE)
    if curve and not np.isfinite(curve[-1]["loss"]):
        raise DetectorError(
            f"the generator diverged: its loss is {curve[-1]['loss']}; ask for a learning_rate below "
            f"{config.learning_rate:g}"
        )
    return curve


def _trainer(policy: Policy, pairs: Sequence[Pair], config: PreferenceConfig, folder: Path) -> Any:
    import transformers
    from datasets import Dataset
    from trl import DPOTrainer

    class TokenPairs(DPOTrainer):
        """Takes pairs that are tokens already.

        TRL 1.16 would tokenise texts again, ends them with the token that ends a text, and drops what merges across
        the border; here the generator's own tokens are what is learnt, and no text has ended.
        """

        def _prepare_dataset(self, dataset: Any, *arguments: Any, **options: Any) -> Any:
            return dataset

    end = policy.tokenizer.id_to_token(_end_token(policy))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=policy.tokenizer, eos_token=end, pad_token=end)
    rows = {
        "prompt_ids": [list(pair.prompt) for pair in pairs],
        "chosen_ids": [list(pair.chosen) for pair in pairs],
        "rejected_ids": [list(pair.rejected) for pair in pairs],
    }
    return TokenPairs(
        model=policy.adapted,
        args=_arguments(policy, len(pairs), config, folder),
        train_dataset=Dataset.from_dict(rows),
        processing_class=tokenizer,
    )


def _arguments(policy: Policy, count: int, config: PreferenceConfig, folder: Path) -> Any:
    """The recipe in TRL's words, for so many pairs."""
    from trl import DPOConfig

    steps = -(-count // config.batch_size) * config.epochs
    return DPOConfig(
        output_dir=str(folder),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        beta=config.beta,
        lr_scheduler_type="cosine",
        warmup_steps=round(config.warmup * steps),
        max_grad_norm=config.gradient_clip,
        seed=config.seed,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        max_length=None,
        precompute_ref_log_probs=True,
        gradient_checkpointing=False,
        bf16=native_dtype(str(policy.device)) is torch.bfloat16,
        use_cpu=policy.device.type == "cpu",
        dataloader_pin_memory=policy.device.type != "cpu",
        disable_tqdm=True,
    )


def _end_token(policy: Policy) -> int:
    """The token that ends a text; it only fills rows up here."""
    end = policy.adapted.config.eos_token_id
    return int((end[0] if isinstance(end, list) else end) or 0)


def _watcher(curve: list[dict[str, float]], probe: OnPoint, on_point: OnPoint) -> Any:
    import transformers

    class Watcher(transformers.TrainerCallback):
        """Keeps what is logged, and lets the generator be looked at after each epoch."""

        def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **kw: Any) -> None:
            found = {ours: float(logs[theirs]) for theirs, ours in CURVE.items() if logs and theirs in logs}
            if found:
                curve.append({"step": float(state.global_step)} | found)
                on_point(curve[-1])

        def on_epoch_end(self, args: Any, state: Any, control: Any, **kw: Any) -> None:
            probe({"step": float(state.global_step)})

    return Watcher()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the libraries' progress bars off the terminal, and torch's global random state as it was."""
    import datasets

    before = os.environ.get("TQDM_DISABLE")
    os.environ["TQDM_DISABLE"] = "1"  # TRL asks for no other sign
    datasets.disable_progress_bars()
    try:
        with torch.random.fork_rng(), warnings.catch_warnings():
            # TRL 1.16 gives transformers 5.23 a setting by a name that has a new one, whatever is asked for.
            warnings.filterwarnings("ignore", "`gradient_checkpointing` is deprecated", FutureWarning)
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)  # PEFT 0.21
            yield
    finally:
        datasets.enable_progress_bars()
        if before is None:
            del os.environ["TQDM_DISABLE"]
        else:
            os.environ["TQDM_DISABLE"] = before
