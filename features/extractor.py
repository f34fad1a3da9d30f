"""Encoded documents -> TokenFeatures, batched by length under a token budget.

Shape legend: batch = documents, seq = tokens of the longest, rows = real (unpadded) tokens of a batch.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from features.backbone import Backbone, Encoding, Fingerprint
from features.documents import MIN_TOKENS
from features.errors import BackboneError
from features.metrics import cross_metrics, next_token_metrics
from features.observer import Observer
from features.token_features import CROSS_METRIC_NAMES, METRIC_NAMES, TokenFeatures

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
        self,
        backbone: Backbone,
        *,
        max_length: int = DEFAULT_MAX_LENGTH,
        token_budget: int | None = None,
        layers: Sequence[int] = (),
        observer: Observer | None = None,
    ) -> None:
        """Put a backbone to work.

        Args:
            backbone: the model.
            max_length: tokens of a text that are read.
            token_budget: padded tokens in a batch; default: what suits the device.
            layers: whose hidden states are kept, 1 to the last; default: the last alone. Metrics are always the last's.
            observer: a second model, for `TokenFeatures.cross`.

        Raises:
            BackboneError: when a model cannot read that many tokens.
            UsageError: for layers that the backbone has not.
        """
        self.backbone = backbone
        self.max_length = max_length
        self.token_budget = token_budget or (TOKEN_BUDGET if backbone.device.type == "cpu" else GPU_TOKEN_BUDGET)
        self.observer = observer
        self.fingerprint: Fingerprint = backbone.fingerprint(
            max_length, layers=layers, observer="" if observer is None else observer.identity
        )
        if observer is not None:
            observer.backbone.fingerprint(max_length)  # which it must be able to read as well
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
            for index, (hidden, metrics, cross) in zip(batch, outputs, strict=True):
                encoding = encodings[index]
                found[index] = TokenFeatures(
                    key=keys[index],
                    token_ids=encoding.token_ids,
                    kinds=self.backbone.token_kinds[encoding.token_ids],
                    offsets=encoding.offsets,
                    metrics=metrics,
                    hidden=hidden,
                    truncated=encoding.truncated,
                    cross=None if self.observer is None else cross,
                )
                self.tokens_done += lengths[index]
        return [found[i] for i in range(len(encodings))]

    def _run_all(self, batches: list[list[np.ndarray]]) -> list[list[tuple[np.ndarray, np.ndarray, np.ndarray]]]:
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
    def _run(self, batch: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """One batch: (n, d) float16 hidden, (n - 1, k) and (n - 1, 2 or 0) float32 metrics per document."""
        device = self.backbone.device
        rows = [torch.from_numpy(ids).long() for ids in batch]
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device)  # (batch, seq)
        lengths = [len(ids) for ids in rows]
        states = self._states(padded, lengths)
        hidden = states[self.backbone.network.layer_count]  # (rows, hidden)
        # The last token of each document predicts nothing that is known: its target is a placeholder.
        targets = torch.cat([torch.cat([ids[1:], ids[:1]]) for ids in rows])  # (rows,)
        numbers = self._metrics(hidden, targets.to(device), self._observed(padded, lengths, states)).cpu().numpy()
        metrics, cross = np.split(numbers, [len(METRIC_NAMES)], axis=1)
        kept = [states[layer] for layer in self.fingerprint.layers] or [hidden]
        halves = torch.cat(kept, -1).float().clamp_(-HALF_MAX, HALF_MAX).half().cpu().numpy()
        if not np.isfinite(numbers).all() or np.isnan(halves).any():
            raise BackboneError(
                f"backbone {self.backbone.name} computes NaN or infinities of a text, in {self.fingerprint.dtype}: its "
                "weights are damaged, or too large for that type; fetch it again, or name another with --backbone"
            )
        ends = np.cumsum(lengths)
        # Copies: a slice would keep the whole batch alive as long as one of its documents.
        return [
            (halves[end - n : end].copy(), metrics[end - n : end - 1].copy(), cross[end - n : end - 1].copy())
            for n, end in zip(lengths, ends, strict=True)
        ]

    def _states(self, padded: Tensor, lengths: Sequence[int]) -> dict[int, Tensor]:
        """Layer -> its states of the real tokens, (rows, hidden): the last layer, and what else is asked for."""
        wanted = {self.backbone.network.layer_count, *self.fingerprint.layers}
        if self.observer is not None and self.observer.layer is not None:
            wanted.add(self.observer.layer)
        layers = sorted(wanted)
        found = self.backbone.layer_states(padded, layers)
        return {layer: _unpadded(states, lengths) for layer, states in zip(layers, found, strict=True)}

    def _observed(self, padded: Tensor, lengths: Sequence[int], states: Mapping[int, Tensor]) -> Tensor | None:
        """What the observer's projection reads of each real token, (rows, its hidden); None without observer."""
        if self.observer is None:
            return None
        if self.observer.layer is None:
            return _unpadded(self.observer.backbone.hidden_states(padded), lengths)
        return self.observer.normed(states[self.observer.layer])

    def _metrics(self, hidden: Tensor, targets: Tensor, observed: Tensor | None) -> Tensor:
        """Metrics of each row, (rows, hidden) -> (rows, k, or k + 2 with an observer).

        From HEAD_ROWS rows of logits at a time, of each of the two models.
        """
        count = len(METRIC_NAMES)
        columns = count if observed is None else count + len(CROSS_METRIC_NAMES)
        out = torch.empty(len(hidden), columns, device=hidden.device)
        step = METRIC_ROWS if hidden.device.type == "cpu" else HEAD_ROWS
        for start in range(0, len(hidden), HEAD_ROWS):
            logits = self.backbone.logits(hidden[start : start + HEAD_ROWS])  # (<= HEAD_ROWS, vocab)
            other = None
            if self.observer is not None and observed is not None:
                other = self.observer.backbone.logits(observed[start : start + HEAD_ROWS])
            for low in range(0, len(logits), step):
                rows = slice(start + low, min(start + low + step, start + len(logits)))
                out[rows, :count] = next_token_metrics(logits[low : low + step], targets[rows])
                if other is not None:
                    out[rows, count:] = cross_metrics(other[low : low + step], logits[low : low + step])
        return out


def _unpadded(states: Tensor, lengths: Sequence[int]) -> Tensor:
    """(batch, seq, hidden) -> (rows, hidden): the real tokens of each document, one after the other."""
    return torch.cat([states[i, :length] for i, length in enumerate(lengths)])


def long_enough(encoding: Encoding) -> bool:
    """Whether a document has the tokens that a score needs."""
    return len(encoding.token_ids) >= MIN_TOKENS
