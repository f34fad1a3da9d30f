"""The generator that is fine-tuned: a frozen causal language model with low-rank adapters.

Shape legend: batch = texts, seq = tokens of the longest prompt and continuation.
"""

import copy
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import safetensors.torch
import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer
from torch import Tensor, nn

from detect.lora import LoraShape
from features.backbone import load_tokenizer, native_dtype
from features.causal_lm import TransformersLM
from features.errors import BackboneError
from features.registry import BackboneFiles

GENERATOR_LORA = LoraShape(rank=16, alpha=32, dropout=0.0, targets="all-linear")
"""Adapters on every linear layer of the blocks: a generator must write otherwise, not choose between classes."""

WEIGHTS_FILE = "adapter_model.safetensors"
MICRO_BATCH = 8
"""Texts whose logits are in memory together: 130 MB in float32 at 80 tokens and a vocabulary of 49,152."""

Texts = Sequence[tuple[Sequence[int], Sequence[int]]]
"""Token ids of prompts and of what follows each."""


class Policy:
    """A causal language model with adapters that learn, and a plain copy of it to sample from.

    Sampling through unmerged adapters takes two thirds longer, and merging them in place would round the frozen
    weights a little more each time; so the copy gets the frozen weights plus the adapters' product.

    Args:
        files: the base model.
        adapted: PEFT's model; the adapters are float32, the rest is frozen.
        plain: the same model without adapters.
        tokenizer: of both.
    """

    def __init__(self, files: BackboneFiles, adapted: Any, plain: Any, tokenizer: Tokenizer) -> None:
        self.files = files
        self.adapted = adapted
        self.tokenizer = tokenizer
        self.device: torch.device = plain.device
        self._plain = plain

    @classmethod
    def load(
        cls, files: BackboneFiles, shape: LoraShape = GENERATOR_LORA, *, seed: int = 0, device: str | None = None
    ) -> Self:
        """A generator whose adapters change nothing yet.

        Args:
            files: the base model (`features.registry.resolve`).
            shape: of the adapters.
            seed: of the adapters.
            device: "cpu" or "cuda"; default: cuda when there is one.

        Raises:
            BackboneError: when the model does not load or has none of the layers that are to be adapted.
        """
        import peft  # 2 s to import

        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        plain: Any = TransformersLM.load(files.path, device, native_dtype(device)).model
        plain.set_attn_implementation("sdpa")  # the one for the processor is made for inference
        config = peft.LoraConfig(
            task_type=peft.TaskType.CAUSAL_LM,
            r=shape.rank,
            lora_alpha=shape.alpha,
            lora_dropout=shape.dropout,
            target_modules=list(shape.targets) if isinstance(shape.targets, tuple) else shape.targets,
        )
        with torch.random.fork_rng(), warnings.catch_warnings():
            # As in detect/lora.py: PEFT's use of an old name, and its word on GPT-2's transposed weights.
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
            warnings.filterwarnings("ignore", "fan_in_fan_out is set to False but the target module is `Conv1D`")
            torch.manual_seed(seed)
            try:
                adapted = peft.get_peft_model(copy.deepcopy(plain), config)
            except ValueError as error:
                raise BackboneError(
                    f"no LoRA adapters for {files.name}: {str(error).splitlines()[0]}; name linear layers of its blocks"
                ) from error
        adapted.peft_config["default"].base_model_name_or_path = files.name
        return cls(files, adapted, plain, load_tokenizer(files.path))

    @property
    def name(self) -> str:
        """Of the base model."""
        return self.files.name

    def parameters(self) -> list[nn.Parameter]:
        """What learns: the adapters."""
        return [parameter for parameter in self.adapted.parameters() if parameter.requires_grad]

    @torch.no_grad()
    def snapshot(self) -> Any:
        """A plain model that writes as the adapted one does now, for `detect.adversarial.generation.sample`.

        It is the same object on every call; its weights are those of the last one.
        """
        frozen = self.adapted.get_base_model()
        for name, layer in frozen.named_modules():
            if hasattr(layer, "get_delta_weight"):
                base = layer.get_base_layer().weight
                merged = base.float() + layer.get_delta_weight("default").float()
                self._plain.get_submodule(name).weight.copy_(merged.to(base.dtype))
        return self._plain.eval()

    def log_probs(self, texts: Texts) -> Tensor:
        """Mean log-probability of a continuation's tokens after its prompt, nats: texts to (batch,) float32.

        Call it on at most `MICRO_BATCH` texts where gradients are wanted.

        Raises:
            ValueError: for an empty prompt or continuation.
        """
        if empty := [index for index, (prompt, rest) in enumerate(texts) if not prompt or not rest]:
            raise ValueError(f"texts {empty} have an empty prompt or continuation; need at least 1 token of each")
        rows = [torch.tensor([*prompt, *rest]) for prompt, rest in texts]
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True).to(self.device)  # (batch, seq)
        scored = torch.zeros_like(ids[:, 1:], dtype=torch.bool)  # (batch, seq - 1): predictions of a continuation
        attention = torch.zeros_like(ids)
        for row, (prompt, rest) in enumerate(texts):
            scored[row, len(prompt) - 1 : len(prompt) + len(rest) - 1] = True
            attention[row, : len(prompt) + len(rest)] = 1
        with torch.autocast(self.device.type, torch.bfloat16, enabled=native_dtype(str(self.device)) is torch.bfloat16):
            logits = self.adapted(input_ids=ids, attention_mask=attention, use_cache=False).logits[:, :-1]
        # Only rows that are scored become float32: of a vocabulary's width, they are what takes memory.
        log_probs = -nn.functional.cross_entropy(logits[scored].float(), ids[:, 1:][scored], reduction="none")
        lengths = scored.sum(-1)  # (batch,)
        return torch.stack([part.mean() for part in log_probs.split(lengths.tolist())])

    def save(self, directory: Path) -> None:
        """Write the adapters as PEFT does: `adapter_model.safetensors` and `adapter_config.json`."""
        temporary = directory.with_name(f".{directory.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        self.adapted.save_pretrained(temporary, save_embedding_layers=False)
        (temporary / "README.md").unlink(missing_ok=True)  # PEFT's card template, without a word on this model
        shutil.rmtree(directory, ignore_errors=True)
        temporary.rename(directory)

    def restore(self, directory: Path) -> None:
        """Read adapters that `save` wrote.

        Raises:
            BackboneError: when they are not there, damaged, or of another shape.
        """
        import peft

        path = directory / WEIGHTS_FILE
        try:
            tensors = safetensors.torch.load(path.read_bytes())
        except (OSError, SafetensorError) as error:
            raise BackboneError(f"{path} holds no adapters ({error}); remove {directory} and train again") from error
        own = peft.get_peft_model_state_dict(self.adapted)
        if wrong := sorted(
            n for n in {*own, *tensors} if n not in own or n not in tensors or own[n].shape != tensors[n].shape
        ):
            raise BackboneError(
                f"{path} holds adapters of another shape ({wrong[0]}); remove {directory} and train again"
            )
        peft.set_peft_model_state_dict(self.adapted, tensors)
