"""A transformer's passes as recordings that are played again, such as CUDA graphs.

A GPU is given thousands of small kernels per pass, and giving them takes longer than computing
them. A recording gives all of them at once. It does the same operations on the same addresses, so
what a pass reads is first copied to places that stay, and the cache stays from picture to picture.

Letters: b batch, l tokens, c width.
"""

import dataclasses
import weakref
from collections.abc import Callable, Hashable
from contextlib import nullcontext

import torch
from torch import Tensor

from nsarm_cli.models.core.attention import KeyValueCache
from nsarm_cli.models.core.block import BlockContext
from nsarm_cli.models.core.schedule import ScaleSchedule
from nsarm_cli.models.core.transformer import AfterBlock, NextScaleTransformer

Replay = Callable[[], Tensor]
"""Does recorded work again; its result lies in the same place each time."""

Record = Callable[[Callable[[], Tensor]], Replay]
"""Records the work of a function that has run before; what it returns is the result's place."""


class RecordedPasses:
    """Plays recordings in the place of a transformer's passes.

    Of each pass the first run goes as always, the second is recorded, and all further ones are
    played. There are recordings for one size of a batch and one length of prompts; another begins
    anew, so that memory does not grow. Passes that cannot be recorded go as always: with gradients,
    with weights or cache that wait elsewhere, and with guidance inside the blocks.

    Args:
        transformer: whose passes; one run at a time.
        begin: starts a set of recordings, which are dropped together.
    """

    def __init__(self, transformer: NextScaleTransformer, begin: Callable[[], Record]) -> None:
        self._transformer = transformer
        self._begin = begin
        self._through = transformer.through_blocks
        self._allocate = transformer.allocate_cache
        self._kind: Hashable = None
        self._cache: KeyValueCache | None = None
        self._prompt: Hashable = None
        self._record: Record | None = None
        self._replays: dict[Hashable, Replay] = {}
        self._seen: set[Hashable] = set()
        self._places: dict[Hashable, Tensor] = {}
        self._copied: dict[Hashable, weakref.ref[Tensor]] = {}

    @classmethod
    def install(cls, transformer: NextScaleTransformer, begin: Callable[[], Record]) -> None:
        """Let a transformer's passes be recorded from now on."""
        passes = cls(transformer, begin)
        object.__setattr__(transformer, "through_blocks", passes.through_blocks)
        object.__setattr__(transformer, "allocate_cache", passes.allocate_cache)
        object.__setattr__(transformer, "let_go", passes.let_go)

    def allocate_cache(self, batch: int, schedule: ScaleSchedule) -> KeyValueCache:
        """The cache of the last run, emptied, if it fits; see `NextScaleTransformer`."""
        if not self._is_recordable():
            self.let_go()
            return self._allocate(batch, schedule)
        kind = batch, schedule
        if kind != self._kind:
            self._forget(kind)
        if self._cache is None:
            with torch.inference_mode(mode=False):
                self._cache = self._allocate(batch, schedule)
        self._cache.length = 0
        return self._cache

    def through_blocks(self, x: Tensor, context: BlockContext, after: AfterBlock | None) -> Tensor:
        """Run "b l c" through all blocks; see `NextScaleTransformer`."""
        cache = context.cache
        if after is not None or cache is None or cache is not self._cache:
            return self._through(x, context, after)
        prompt = _shapes(context)
        if prompt != self._prompt:
            self._drop(prompt)
        placed, context = self._placed(x, context)
        # With batch, schedule and prompt, these tell all that differs between passes.
        step = cache.length, x.shape
        if step not in self._replays:
            if step not in self._seen:
                self._seen.add(step)
                return self._through(placed, context, None)
            if self._record is None:
                self._record = self._begin()
            self._replays[step] = self._record(lambda: self._through(placed, context, None))
        return self._replays[step]().clone()  # the next run writes where this result lies

    def let_go(self) -> None:
        """Drop recordings and cache; recordings would read weights where they were."""
        self._forget(None)

    def _is_recordable(self) -> bool:
        near = self._transformer.at_work is nullcontext and self._transformer.cache_home is None
        return near and not torch.is_grad_enabled()

    def _forget(self, kind: Hashable) -> None:
        """Have nothing, for runs of another kind."""
        self._kind = kind
        self._cache = None
        self._drop(None)

    def _drop(self, prompt: Hashable) -> None:
        """Have no recordings, for prompts of another length."""
        self._prompt = prompt
        self._record = None
        for kept in (self._replays, self._seen, self._places, self._copied):
            kept.clear()

    def _placed(self, x: Tensor, context: BlockContext) -> tuple[Tensor, BlockContext]:
        """Copies of all that a pass reads, in places that stay."""
        text = None
        if context.text is not None:
            text = [
                (self._place((block, "keys"), keys), self._place((block, "values"), values))
                for block, (keys, values) in enumerate(context.text)
            ]
        mask = context.text_mask
        return self._place("x", x), dataclasses.replace(
            context,
            signal=self._place("signal", context.signal),
            rope=self._place("rope", context.rope),
            text=text,
            text_mask=None if mask is None else self._place("mask", mask),
        )

    def _place(self, name: Hashable, tensor: Tensor) -> Tensor:
        key = name, tensor.shape, tensor.dtype
        if key not in self._places:
            # Inference mode would let nobody else write to it.
            with torch.inference_mode(mode=False):
                self._places[key] = torch.empty_like(tensor, memory_format=torch.contiguous_format)
        held = self._copied.get(key)
        if held is None or held() is not tensor:  # the prompt is the same in all passes of a run
            self._places[key].copy_(tensor)
            self._copied[key] = weakref.ref(tensor)
        return self._places[key]


def _shapes(context: BlockContext) -> Hashable:
    """Of the prompts."""
    text = None if context.text is None else context.text[0][0].shape
    return text, context.text_mask is None
