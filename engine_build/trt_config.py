"""Parts of a build's configuration: progress, profiles, and that contexts may share them."""

from __future__ import annotations

from typing import Any

from engine_build.errors import PlanError
from engine_build.trt_types import Config, Network, Progress
from engine_build.trt_values import at_rows, sizes_of
from schemas.engine_card import Profile


def monitor(trt: Any, progress: Progress) -> Any:  # noqa: ANN401
    """An object of the library's own class that passes on to `progress` how far a build is."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            progress.phase_started(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            progress.step_done(phase_name, step)
            return True

        def phase_finish(self, phase_name: str) -> None:
            progress.phase_finished(phase_name)

    return Monitor()


def share_profiles(trt: Any, config: Any) -> None:  # noqa: ANN401
    """Let several contexts use one profile at a time, as workers do; 8.6 must be asked, later versions always do."""
    sharing = getattr(getattr(trt, "PreviewFeature", None), "PROFILE_SHARING_0806", None)
    if sharing is not None and not config.get_preview_feature(sharing):
        config.set_preview_feature(sharing, True)  # noqa: FBT003 - TensorRT's signature


def add_profile(builder: Any, config: Config, network: Network, rows: Profile) -> None:  # noqa: ANN401
    """Add a profile of those batch sizes for every input. Raises `PlanError` if it is refused."""
    profile = builder.create_optimization_profile()
    for tensor in map(network.get_input, range(network.num_inputs)):
        shape = sizes_of(tensor.shape)
        profile.set_shape(
            tensor.name, at_rows(shape, rows.min_rows), at_rows(shape, rows.opt_rows), at_rows(shape, rows.max_rows)
        )
    if config.add_optimization_profile(profile) < 0:
        raise PlanError(
            f"profile {rows.min_rows}:{rows.opt_rows}:{rows.max_rows} was refused; expected min <= opt <= max"
        )
