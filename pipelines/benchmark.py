"""A YAML of detectors x corpora x protocols -> judgements, figures, tables and plots in a folder; resumable."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl

from detect.trained import Progress, silent
from features.errors import DetectorError, InputError
from pipelines.benchmark_config import BenchmarkConfig
from pipelines.benchmark_features import FeatureSource, Seen
from pipelines.cells import cell_name, digest_of, publish_frame
from pipelines.figures import figures_table
from pipelines.fitting import check_output
from pipelines.judging import Contender, Trainings, judged
from pipelines.means import means_table, means_with_intervals
from pipelines.protocols import PROTOCOLS, Fold, folds
from pipelines.reports import headline, write_report
from pipelines.scorers import LanguageModels
from pipelines.tracking import UNTRACKED, Tracker
from pipelines.training_data import RowsProgress

Finished = Callable[[pl.DataFrame, pl.DataFrame], None]
"""Given the judgements and the figures of each cell as it is finished, for experiment tracking."""


@dataclass(frozen=True)
class BenchmarkResult:
    """What a benchmark gave: its means, and why each cell that could not be judged is left out of them."""

    means: pl.DataFrame
    left_out: list[str]


@dataclass
class Benchmark:
    """A benchmark under way in a folder: what is judged already stays judged.

    Args:
        config: what is compared.
        folder: of the output; a folder `judgements` in it holds a file for each fold and detector.
        plain: its documents with the features that most detectors read.
        others: by label, the same documents as detectors see them that read more.

    Attributes:
        left_out: cells that could not be judged, each with the reason.
    """

    config: BenchmarkConfig
    folder: Path
    plain: Seen
    others: Mapping[str, Seen]
    left_out: list[str] = field(default_factory=list)
    _trained: tuple[Fold, int, dict[str, Trainings]] | None = None

    def cells(self) -> Iterator[tuple[Fold, Contender, int, Path]]:
        """Everything that is to be judged, with the file that holds it when it is.

        Folds that share a training follow one another, so it is done once.
        """
        for seed in self.config.seeds:
            recipes = [
                contender.recipe(self._seen(contender).corpora.backbone, seed) for contender in self.config.detectors
            ]
            for protocol in sorted(self.config.protocols, key=PROTOCOLS.index):
                for fold in self._folds(protocol, seed):
                    for contender, recipe in zip(self.config.detectors, recipes, strict=True):
                        yield fold, contender, seed, self._file(fold, contender, recipe, seed)

    def _seen(self, contender: Contender) -> Seen:
        return self.others.get(contender.label, self.plain)

    def _folds(self, protocol: str, seed: int) -> Iterator[Fold]:
        corpora = self.plain.corpora
        return folds(
            corpora.data.documents, corpora.names, protocol, seed, self.config.only_learnt, numbers=corpora.sources
        )

    def run(
        self,
        say: Callable[[str], None],
        progress: Progress = silent,
        finished: Finished = lambda judgements, figures: None,
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Judge what is not judged yet; returns all judgements and all figures.

        A fold that cannot be done for a detector (a class is missing in what it would learn from, its scores are no
        numbers) is told and left out.

        Args:
            say: told what a person should know.
            progress: told of trainings.
            finished: given judgements and figures of each cell, first of those kept.
        """
        cells = list(self.cells())
        missing = []
        for cell in cells:
            path = cell[-1]
            if path.is_file() and self._figures_file(path).is_file():
                finished(pl.read_parquet(path), pl.read_parquet(self._figures_file(path)))
            else:
                missing.append(cell)
        if len(missing) < len(cells):
            say(f"{len(cells) - len(missing)} of {len(cells)} are judged already and kept")
        for place, (fold, contender, seed, path) in enumerate(missing, start=1):
            what = f"{contender.label}, {fold.protocol}: {fold.held_out}, seed {seed}"
            say(f"[{place}/{len(missing)}] {what}")
            try:
                frame = pl.read_parquet(path) if path.is_file() else self._judged(fold, contender, seed, progress)
                figures = figures_table(frame, fprs=self.config.fprs, resamples=self.config.resamples)
            except (ValueError, InputError, DetectorError) as error:
                say(f"left out: {error}")
                self.left_out.append(f"{what} is left out: {error}")
                continue
            publish_frame(figures, self._figures_file(path))
            publish_frame(frame, path)  # last: its presence says that both are there
            finished(frame, figures)
        found = [path for _, _, _, path in cells if path.is_file()]
        if not found:
            raise InputError("nothing could be judged: see above for the reason of each fold")
        judgements = pl.concat(pl.read_parquet(path) for path in found)
        return judgements, pl.concat(pl.read_parquet(self._figures_file(path)) for path in found)

    def _figures_file(self, judgements: Path) -> Path:
        """Where the figures of a cell are kept, which take as long as judging: named by what they depend on too."""
        digest = digest_of([self.config.fprs, self.config.resamples], digits=8)
        return judgements.with_suffix(f".figures-{digest}.parquet")

    def _judged(self, fold: Fold, contender: Contender, seed: int, progress: Progress) -> pl.DataFrame:
        if not len(fold.test):
            raise InputError("no text is left to judge; give more texts, or a larger share of them")
        corpora, trainings = self._seen(contender).corpora, self._trainings(fold, contender, seed)
        detector = contender.fitted(corpora, fold, seed, progress, trainings)
        return judged(corpora, fold, detector, contender.label, seed)

    def _trainings(self, fold: Fold, contender: Contender, seed: int) -> Trainings:
        """Those at hand if they are of the same texts and seed, by the features that the contender reads."""
        if self._trained is None or self._trained[1] != seed or not self._trained[0].same_training(fold):
            self._trained = fold, seed, {}
        label = contender.label if contender.label in self.others else ""
        return self._trained[2].setdefault(label, Trainings())

    def _file(self, fold: Fold, contender: Contender, recipe: Mapping[str, Any], seed: int) -> Path:
        """Its name tells all that decides its content, so another configuration never finds it by mistake."""
        keys = self.plain.corpora.data.corpus.keys
        what = {
            "features": dict(self._seen(contender).identity),
            "name": contender.name,
            "recipe": dict(recipe),
            "seed": seed,
            "prefix": fold.prefix,
            "version": version("pawn-detect"),
            **{
                part: [keys[index] for index in getattr(fold, part)]
                for part in ("train", "validation", "calibration", "test")
            },
        }
        name = cell_name(f"{fold.protocol}-{fold.held_out}-{contender.label}", seed, what)
        return self.folder / "judgements" / f"{name}.parquet"


def run_benchmark(
    config: BenchmarkConfig,
    folder: Path,
    cache: Path,
    *,
    device: str | None,
    say: Callable[[str], None],
    rows_line: RowsProgress = lambda rows, total, tokens: None,
    progress: Progress = silent,
    tracker: Tracker = UNTRACKED,
) -> BenchmarkResult:
    """Extract, train, judge, write the report, record the run and each of its cells.

    Raises:
        PawnError: for everything that can be wrong with corpora, backbone, detectors or the disk.
    """
    check_output(folder)
    source = FeatureSource(config, LanguageModels(device, say), cache, rows_line)
    source.check()
    with tracker.run("benchmark", config.name, config.settings() | {"features": source.identity()}) as run:
        for path in (path for paths in config.every_corpus.values() for path in paths):
            run.dataset(path, "benchmark")
        plain = source.plain()
        for status, count in plain.corpora.left_out.items():
            say(f"{count:,} rows are left out: {status}")
        benchmark = Benchmark(config, folder, plain, source.others(plain, say))

        def finished(judgements: pl.DataFrame, figures: pl.DataFrame) -> None:
            cell = judgements.row(0, named=True)
            place = {name: cell[name] for name in ("detector", "protocol", "held_out", "seed")}
            with run.child(f"{cell['detector']}, {cell['protocol']}: {cell['held_out']}", place) as child:
                child.metrics(headline(means_table(figures)))

        judgements, figures = benchmark.run(say, progress, finished)
        say("Intervals of the means")
        means = means_with_intervals(figures, judgements, fprs=config.fprs, resamples=config.resamples)
        title = f"Benchmark {config.name}"
        written = write_report(judgements, figures, means, folder, title, config.fprs, benchmark.left_out)
        run.metrics(headline(means))
        for path in written:
            run.file(path, "plots" if path.parent.name == "plots" else "")
    return BenchmarkResult(means, benchmark.left_out)
