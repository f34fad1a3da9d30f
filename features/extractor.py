"""Encoded documents -> TokenFeatures, batched by length under a token budget.

Shape legend: batch = documents, seq = tokens of the longest, rows = real (unpadded) tokens of a batch.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from features.backbone import Backbone, Encoding, Fingerprint
from features.documents import MIN_TOKENS
from features.metrics import next_token_metrics
from features.token_features import METRIC_NAMES, TokenFeatures

DEFAULT_MAX_LENGTH = 512
"""PAWN's own limit (arXiv 2501.03940)."""

TOKEN_BUDGET = 1024
"""Padded tokens in a batch: its activations stay in the caches of one core."""

GPU_TOKEN_BUDGET = 16_384
"""Padded tokens in a batch on an accelerator, which wants large products."""

MOST_WORKERS = 8
"""Batches at work at a time on a processor, each on its own share of the cores. A batch a core beats all cores on
one batch: what does not split over threads (small operations, copies, Python) runs side by side."""

HEAD_ROWS = 256
"""Rows projected onto the vocabulary at a time: a full-speed matrix product, 25 MB at 49,152 tokens."""

METRIC_ROWS = 8
"""Rows whose metrics are computed at a time on a processor: 8 x 49,152 float32 stay in the second-level
cache, four times faster than 256 rows at once."""

HALF_MAX = float(np.finfo(np.float16).max)


def batch_by_length(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Indices in batches of similar length: each batch's size x longest <= `token_budget` (or one document).

    Longest first, so that the largest allocation comes at the start.
    """
    if token_budget < 1:
        raise ValueError(f"expected a token budget of at least 1, got {token_budget}")
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if not batches or (len(batches[-1]) + 1) * lengths[batches[-1][0]] > token_budget:
            batches.append([])
        batches[-1].append(index)
    return batches


class Extractor:
    """Runs a backbone over documents and keeps what detectors need."""

    def __init__(
        self, backbone: Backbone, *, max_length: int = DEFAULT_MAX_LENGTH, token_budget: int | None = None
    ) -> None:
        """Put a backbone to work.

        Args:
            backbone: the model.
            max_length: tokens of a text that are read.
            token_budget: padded tokens in a batch; default: what suits the device.

        Raises:
            BackboneError: when the model cannot read that many tokens.
        """
        self.backbone = backbone
        self.max_length = max_length
        self.token_budget = token_budget or (TOKEN_BUDGET if backbone.device.type == "cpu" else GPU_TOKEN_BUDGET)
        self.fingerprint: Fingerprint = backbone.fingerprint(max_length)
        self.tokens_done = 0

    def encode(self, texts: Sequence[str]) -> list[Encoding]:
        """Tokenise under this extractor's length limit."""
        return self.backbone.encode(texts, self.max_length)

    def extract(self, keys: Sequence[str], encodings: Sequence[Encoding]) -> list[TokenFeatures]:
        """Features of encoded documents, in their order.

        The same documents in the same call always give the same bits on the same machine; in other company,
        the same numbers within the tolerance that tests/features/test_extractor.py states.

        Raises:
            ValueError: for a document of fewer than two tokens, which predicts nothing.
        """
        lengths = [len(encoding.token_ids) for encoding in encodings]
        if lengths and min(lengths) < 2:
            short = lengths.index(min(lengths))
            raise ValueError(f"document {keys[short]} has {lengths[short]} tokens; at least 2 are needed")
        batches = batch_by_length(lengths, self.token_budget)
        found: dict[int, TokenFeatures] = {}
        computed = self._run_all([[encodings[index].token_ids for index in batch] for batch in batches])
        for batch, outputs in zip(batches, computed, strict=True):
            for index, (hidden, metrics) in zip(batch, outputs, strict=True):
                encoding = encodings[index]
                found[index] = TokenFeatures(
                    key=keys[index],
                    token_ids=encoding.token_ids,
                    offsets=encoding.offsets,
                    metrics=metrics,
                    hidden=hidden,
                    truncated=encoding.truncated,
                )
                self.tokens_done += lengths[index]
        return [found[i] for i in range(len(encodings))]

    def _run_all(self, batches: list[list[np.ndarray]]) -> list[list[tuple[np.ndarray, np.ndarray]]]:
        """Every batch through the model, several side by side on a processor."""
        threads = torch.get_num_threads()
        workers = min(len(batches), threads, MOST_WORKERS)
        if self.backbone.device.type != "cpu" or workers < 2:
            return [self._run(batch) for batch in batches]
        with ThreadPoolExecutor(
            workers, thread_name_prefix="extractor", initializer=torch.set_num_threads, initargs=(threads // workers,)
        ) as pool:
            try:
                return list(pool.map(self._run, batches))
            finally:
                pool.shutdown(cancel_futures=True)
                torch.set_num_threads(threads)  # the workers' setting is also that of threads yet to be born

    @torch.inference_mode()
    def _run(self, batch: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """One batch through the model: (n, d) float16 hidden and (n - 1, k) float32 metrics per document."""
        device = self.backbone.device
        rows = [torch.from_numpy(ids).long() for ids in batch]
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)  # (batch, seq)
        states = self.backbone.hidden_states(padded.to(device))  # (batch, seq, hidden)
        hidden = torch.cat([states[i, : len(ids)] for i, ids in enumerate(rows)])  # (rows, hidden)
        # The last token of each document predicts nothing that is known: its target is a placeholder.
        targets = torch.cat([torch.cat([ids[1:], ids[:1]]) for ids in rows])  # (rows,)
        metrics = self._metrics(hidden, targets.to(device)).cpu().numpy()
        halves = hidden.float().clamp_(-HALF_MAX, HALF_MAX).half().cpu().numpy()
        ends = np.cumsum([len(ids) for ids in rows])
        # Copies: a slice would keep the whole batch alive as long as one of its documents.
        return [
            (halves[end - len(ids) : end].copy(), metrics[end - len(ids) : end - 1].copy())
            for ids, end in zip(rows, ends, strict=True)
        ]

    def _metrics(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Metrics of each row, (rows, hidden) -> (rows, k), from HEAD_ROWS rows of logits at a time."""
        out = torch.empty(len(hidden), len(METRIC_NAMES), device=hidden.device)
        step = METRIC_ROWS if hidden.device.type == "cpu" else HEAD_ROWS
        for start in range(0, len(hidden), HEAD_ROWS):
            logits = self.backbone.logits(hidden[start : start + HEAD_ROWS])  # (<= HEAD_ROWS, vocab)
            for low in range(0, len(logits), step):
                rows = slice(start + low, min(start + low + step, start + len(logits)))
                out[rows] = next_token_metrics(logits[low : low + step], targets[rows])
        return out


def long_enough(encoding: Encoding) -> bool:
    """Whether a document has the tokens that a score needs."""
    return len(encoding.token_ids) >= MIN_TOKENS
