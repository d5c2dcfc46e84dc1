"""Trains one forecaster: fixed seed, cosine schedule, averaged weights, the best epoch by a validation origin."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from demo.training.features import LONG_MEMORY
from demo.training.loss import LossConfig, quantile_loss
from demo.training.model import Forecaster
from demo.training.windows import Windows, epoch_order

_CUDA: Any = torch.cuda  # parts of it have no types
_EAGER_STEPS: Final = 12  # before the capture, so that libraries have chosen and loaded their kernels


@dataclass(frozen=True, slots=True, kw_only=True)
class FitConfig:
    """How a forecaster is trained.

    origin_stride: every n-th day is a training origin. first_origin: the first one (days before the data read as out of stock).
    neutral_share: share of windows whose covariate is replaced by its neutral value. level_noise: standard deviation of the log of
    a random factor on a window's level. patience: epochs without a better validation score before training ends.
    """

    epochs: int
    batch: int
    learning_rate: float
    weight_decay: float = 0.01
    first_origin: int = 20
    origin_stride: int = 1
    average_decay: float = 0.998
    neutral_share: float = 0.05
    temperature_neutral_share: float = 0.3
    level_noise: float = 0.3
    patience: int = 6
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochReport:
    """One line of the training report. score: validation pinball loss / mean sales, lower is better; None without validation."""

    epoch: int
    seconds: float
    loss: float
    score: float | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fit:
    """A trained forecaster (averaged weights), the epoch it is from, and how training went."""

    model: Forecaster
    epoch: int
    history: tuple[EpochReport, ...]


Score = Callable[[Forecaster], float]


class Trainer:
    """Trains `model` in place on windows whose days lie before `end`.

    On a GPU one step is captured as a CUDA graph and replayed: these networks are so small that launching their kernels one
    by one takes longer than running them.
    """

    def __init__(
        self, model: Forecaster, windows: Windows, config: FitConfig, *, end: int, seed: int, graphs: bool
    ) -> None:
        self.model, self.windows, self.config, self.end = model, windows, config, end
        self.average = copy.deepcopy(model).requires_grad_(requires_grad=False)
        self.origins = np.arange(config.first_origin, end - 1, config.origin_stride, dtype=np.int64)
        self.generator = torch.Generator().manual_seed(seed)
        device = windows.device
        self.rate, self.blend = torch.zeros((), device=device), torch.zeros((), device=device)
        self.order = torch.zeros(config.batch, 2, dtype=torch.int64, device=device)
        self.loss = torch.zeros((), device=device)
        self.optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=self.rate if device.type == "cuda" else config.learning_rate,
            weight_decay=config.weight_decay,
            betas=(0.9, 0.98),
            capturable=device.type == "cuda",
        )
        self.steps_per_epoch = max(windows.series * len(self.origins) // config.batch, 1)
        self.step = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        # A capture needs a stream of its own, and what is captured must have run there before. None: no capture.
        self.stream: torch.cuda.Stream | None = _CUDA.Stream(device) if graphs and device.type == "cuda" else None
        self._synchronize()

    def epoch(self) -> float:
        """One pass over all windows. Returns the mean loss."""
        self.model.train()
        order = epoch_order(self.windows.series, self.origins, self.generator).to(self.windows.device)
        batches = torch.split(order[: self.steps_per_epoch * self.config.batch], self.config.batch)
        with contextlib.nullcontext() if self.stream is None else torch.cuda.stream(self.stream):
            loss = torch.stack([self._step(batch) for batch in batches]).mean()
        self._synchronize()
        return float(loss)

    def _step(self, order: Tensor) -> Tensor:
        rate = self.config.learning_rate * self._schedule()
        self.rate.fill_(rate)
        if self.windows.device.type != "cuda":
            self.optimizer.param_groups[0]["lr"] = rate
        self.blend.fill_(1.0 - min(self.config.average_decay, (self.step + 1) / (self.step + 10)))
        if len(order) < self.config.batch:  # only data sets smaller than one batch
            order = order[torch.arange(self.config.batch, device=order.device) % len(order)]
        self.order.copy_(order)
        if self.stream is not None and self.step == _EAGER_STEPS:
            self.graph = self._captured(self.stream)
        if self.graph is None:
            self._compute()
        else:
            self.graph.replay()
        self.step += 1
        return self.loss.clone()

    def _captured(self, stream: torch.cuda.Stream) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        self._synchronize()
        with torch.cuda.graph(graph, stream=stream):
            self._compute()
        return graph

    def _synchronize(self) -> None:
        if self.windows.device.type == "cuda":
            torch.cuda.synchronize()

    def _compute(self) -> None:
        """One step on the windows in `self.order`; the loss is left in `self.loss`."""
        batch = self.windows.batch(self.order[:, 0], self.order[:, 1], self.end)
        fields, actual = self._augmented(batch.fields, batch.actual)
        members, scale = self.model.members(fields)
        # Each member has a loss of its own: averaged afterwards, they err independently.
        loss = torch.stack(
            [quantile_loss(each, actual, batch.counted, scale, self.config.loss) for each in members]
        ).sum()
        self.optimizer.zero_grad(set_to_none=True)
        _backward(loss)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        for average, value in zip(self.average.parameters(), self.model.parameters(), strict=True):
            average.lerp_(value.detach(), self.blend)
        self.loss.copy_(loss.detach() / len(members))

    def _schedule(self) -> float:
        warmup = min(200, self.steps_per_epoch)
        total = self.config.epochs * self.steps_per_epoch
        progress = min((self.step - warmup) / max(total - warmup, 1), 1.0)
        return (
            (self.step + 1) / warmup if self.step < warmup else 0.5 * (1.0 + math.cos(math.pi * progress)) * 0.98 + 0.02
        )

    def _augmented(self, fields: dict[str, Tensor], actual: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """Covariates missing at random, levels jittered: neither may be relied on too much."""
        rows = actual.shape[0]
        fields = dict(fields)
        for name, neutral in self.model.features.neutral().items():
            share = self.config.temperature_neutral_share if name == "temperature" else self.config.neutral_share
            missing = torch.rand(rows, 1, device=actual.device) < share
            for key in (name, f"{name}_next"):
                if key in fields:
                    fields[key] = fields[key].masked_fill(missing, neutral)
        factor = torch.exp(self.config.level_noise * torch.randn(rows, 1, device=actual.device))
        for name in ("sales", *LONG_MEMORY):
            if name in fields:
                fields[name] = fields[name] * factor
        return fields, actual * factor


def fit(
    model: Forecaster,
    windows: Windows,
    config: FitConfig,
    *,
    end: int,
    seed: int,
    score: Score | None,
    epochs: int | None = None,
    graphs: bool = True,
) -> Fit:
    """Train until the validation score stops improving, or for exactly `epochs` of the same schedule if there is no score."""
    trainer = Trainer(model, windows, config, end=end, seed=seed, graphs=graphs)
    history: list[EpochReport] = []
    best, best_state, best_epoch = math.inf, trainer.average.state_dict(), 0
    for epoch in range(1, (epochs or config.epochs) + 1):
        start_s = time.monotonic()
        loss = trainer.epoch()
        value = None if score is None else score(trainer.average)
        history.append(EpochReport(epoch=epoch, seconds=time.monotonic() - start_s, loss=loss, score=value))
        print(f"epoch {epoch:3d}  loss {loss:.4f}  validation {'-' if value is None else f'{value:.4f}'}", flush=True)
        if value is None or value < best:
            best, best_epoch = math.inf if value is None else value, epoch
            best_state = {name: tensor.clone() for name, tensor in trainer.average.state_dict().items()}
        if epoch - best_epoch >= config.patience:
            break
    trainer.average.load_state_dict(best_state)
    return Fit(model=trainer.average.eval(), epoch=best_epoch, history=tuple(history))


def predict(model: Forecaster, windows: Windows, as_of: Sequence[int], rows: int = 16384) -> Tensor:
    """Forecasts of all series at each of the days: float32[origins, series, 14, 3] on the CPU."""
    model.eval()
    results = []
    with torch.inference_mode():
        for day in as_of:
            series = torch.arange(windows.series, device=windows.device)
            parts = [
                model(windows.batch(part, torch.full_like(part, day), windows.days).fields).cpu()
                for part in torch.split(series, rows)
            ]
            results.append(torch.cat(parts))
    return torch.stack(results)


def _backward(loss: Any) -> None:  # noqa: ANN401 - the method has no types
    loss.backward()
