"""A model as the benchmark sees it: a resolver whose run falls into named stages.

The stages are those of the real run: nothing is re-implemented here, so what is measured is
what `nsarm upscale` does. A stage ends where a network of the model has run, or where the
loop over scales reports a pass.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

from torch import Generator, Tensor, nn

from nsarm_cli.models.interface import OnScale, Sampling, SuperResolver

Mark = Callable[[], None]
"""Called when a stage ends."""


@dataclass(frozen=True)
class Stage:
    """One stretch of a run.

    Attributes:
        name: for people.
        tokens: that the transformer processes in it, per window.
        ends: the network whose last run ends the stage; None for the other stages, which end
            with one pass of the scale loop each, and the last of all with the result.
        runs: of that network.
    """

    name: str
    tokens: int = 0
    ends: nn.Module | None = None
    runs: int = 1


class BatchResolver(SuperResolver, Protocol):
    """A resolver that can be made to run a whole batch at once, which is what is timed."""

    def resolve_together(
        self,
        lr: Tensor,
        generators: Sequence[Generator],
        sampling: Sampling,
        on_scale: OnScale | None = None,
    ) -> Tensor:
        """Enlarge "b 3 window window" as one batch on any device; see `SuperResolver.resolve`."""
        ...


@dataclass(frozen=True)
class Subject:
    """A model to be measured.

    Attributes:
        resolver: runs it.
        model: all its networks.
        stages: of one run, in order.
    """

    resolver: BatchResolver
    model: nn.Module
    stages: tuple[Stage, ...]

    @property
    def parameters(self) -> int:
        """Learned numbers."""
        return sum(p.numel() for p in self.model.parameters())

    @property
    def weight_bytes(self) -> int:
        """Bytes of the learned numbers."""
        return sum(p.nbytes for p in self.model.parameters())

    def run(self, lr: Tensor, generators: Sequence[Generator], mark: Mark) -> Tensor:
        """Enlarge a batch of windows.

        Args:
            lr: "b 3 window window" in [-1, 1], on the model's device.
            generators: one per window.
            mark: called at the end of each stage.

        Returns:
            What `BatchResolver.resolve_together` returns.

        Raises:
            RuntimeError: the run has not the stages it should have.
        """
        marks = 0

        def count(*_: object) -> None:
            nonlocal marks
            marks += 1
            mark()

        with ExitStack() as hooks:
            for stage in self.stages:
                if stage.ends is not None:
                    every = _every(stage.runs, count)
                    hooks.callback(stage.ends.register_forward_hook(every).remove)
            sr = self.resolver.resolve_together(lr, generators, self.resolver.sampling, count)
        count()
        if marks != len(self.stages):
            raise RuntimeError(f"the run has {marks} stages, but {len(self.stages)} are named")
        return sr


def _every(runs: int, call: Callable[..., None]) -> Callable[..., None]:
    """Call only at every so many runs."""
    done = 0

    def hook(*arguments: object) -> None:
        nonlocal done
        done += 1
        if done % runs == 0:
            call(*arguments)

    return hook
