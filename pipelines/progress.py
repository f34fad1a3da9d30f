"""Progress on standard error: one line rewritten on a terminal, one line every few seconds elsewhere."""

import sys
import time

SECONDS_BETWEEN_LINES = 5.0


class ProgressLine:
    """Documents, tokens per second and time left. Silent unless shown is True or standard error is a terminal."""

    def __init__(self, *, shown: bool | None = None) -> None:
        """`shown`: True and False are the user's word; None means only on a terminal."""
        self._terminal = sys.stderr.isatty()
        self._shown = self._terminal if shown is None else shown
        self._start = time.monotonic()
        self._first: int | None = None
        self._last = 0.0
        self._open = False

    def say(self, message: str) -> None:
        """A line of its own, e.g. that a download begins; also shown where progress is not."""
        self.close()
        print(message, file=sys.stderr, flush=True)

    def update(self, done: int, total: int, unit: str, detail: str = "") -> None:
        """`done` of `total` units; time left follows from the pace since the first update."""
        now = time.monotonic()
        if self._first is None:
            self._first = done
            self._start = now
        if not self._shown or (now - self._last < (0.1 if self._terminal else SECONDS_BETWEEN_LINES) and done < total):
            return
        self._last = now
        gained = done - self._first
        left = (now - self._start) / gained * (total - done) if gained else None
        share = f"{done / total:6.1%}" if total else ""
        line = f"{share}  {done:,}/{total:,} {unit}{detail}" + (f"  {clock(left)} left" if left is not None else "")
        if self._terminal:
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
            self._open = True
        else:
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """End the line that is being rewritten."""
        if self._open:
            print(file=sys.stderr, flush=True)
            self._open = False

    @property
    def seconds(self) -> float:
        """Since the first update."""
        return time.monotonic() - self._start


def clock(seconds: float) -> str:
    """`1:02:03` or `2:03`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class ExtractionLine:
    """Progress of an extraction: called with rows read and tokens computed."""

    def __init__(self, line: ProgressLine, total: int) -> None:
        """`total` rows are to come."""
        self._line = line
        self._total = total

    def __call__(self, rows: int, tokens: int) -> None:
        """Rows read and tokens computed so far."""
        pace = f"  {tokens / max(self._line.seconds, 1e-9):,.0f} tokens/s"
        self._line.update(rows, self._total, "documents", pace)


class TrainingLine:
    """Progress of a training: loss while an epoch runs, validation AUROC when it ends."""

    def __init__(self, line: ProgressLine) -> None:
        """Shows on `line`."""
        self._line = line

    def __call__(self, event: str, values: dict[str, float]) -> None:
        """A step or an epoch, as `detect.training.Progress` describes it."""
        if event == "step":
            done = (values["epoch"] - 1) * values["total"] + values["documents"]
            detail = f"  epoch {values['epoch']:.0f}  loss {values['loss']:.4f}"
            self._line.update(int(done), int(values["epochs"] * values["total"]), "documents", detail)
        else:
            self._line.say(
                f"epoch {values['epoch']:.0f}: loss {values['loss']:.4f}, "
                f"validation AUROC {values['validation_auroc']:.4f}"
            )
