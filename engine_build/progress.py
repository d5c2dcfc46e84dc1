"""How far a build is, on the terminal: one line for each plan, and below it the phases that TensorRT tells of."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from schemas.engine_card import Precision


class Display:
    """A context manager that shows builds while it is open. Where nobody looks (no terminal) it stays silent."""

    def __init__(self, console: Console, *, tells_progress: bool) -> None:
        self._tells = tells_progress
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def of(self, precision: Precision) -> BuildProgress:
        """What hears of the build of one plan, and draws it."""
        text = f"plan {precision}"
        if not self._tells:
            text += " (this TensorRT doesn't tell how far it is)"
        return BuildProgress(self._bars, self._bars.add_task(text, total=None))


class BuildProgress:
    """Draws one build. Called from the builder's threads; rich's `Progress` has a lock of its own."""

    def __init__(self, bars: Progress, task: TaskID) -> None:
        self._bars = bars
        self._task = task
        self._phases: dict[str, TaskID] = {}

    def phase_started(self, phase: str, parent: str | None, steps: int) -> None:
        """See `trt_types.Progress`."""
        if parent is None:
            self._phases[phase] = self._task
            self._bars.update(self._task, total=steps)
        else:
            self._phases[phase] = self._bars.add_task(f"  {phase}", total=steps)

    def step_done(self, phase: str, step: int) -> None:
        """See `trt_types.Progress`."""
        if phase in self._phases:
            self._bars.update(self._phases[phase], completed=step + 1)

    def phase_finished(self, phase: str) -> None:
        """See `trt_types.Progress`."""
        task = self._phases.pop(phase, None)
        if task is not None and task != self._task:
            self._bars.remove_task(task)
