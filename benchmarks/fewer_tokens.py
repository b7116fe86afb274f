"""What fewer tokens or fewer keys at the last scale cost nsarm-nano, and what they save.

    python benchmarks/fewer_tokens.py --lr FOLDER --hr FOLDER --measure-weights FOLDER
        [--limit 8] [--threads 1] [--tokens 0.75 0.5 0.25] [--keys 0.5 0.25 0.1]

Two ideas from the literature, as an experiment; `nsarm upscale` knows neither.

* Tokens, after FastVAR (arXiv 2503.23367): at the last scale only those tokens pass through the
  transformer that lie farthest from the mean of all. The others get what the transformer made of
  their place at the scale before ("cached"), or add nothing to the sum of codes ("nothing").
* Keys, after ScaleKV (arXiv 2505.19602): at the last scale each head keeps those keys of earlier
  scales that a sample of its queries attends to most.

Both folders hold pictures of the same names, those of --hr four times as wide and high. Each
picture is cut into whole windows without overlap. Prints LPIPS to --hr, its mean difference to the
full model with twice the standard error over pictures, and medians of processor seconds of the
last scale and of a whole window.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image
from torch import Tensor

from nsarm_cli.imaging.finding import find_images
from nsarm_cli.imaging.rgb import to_rgb
from nsarm_cli.imaging.tensors import to_tensor
from nsarm_cli.models.core.attention import block_causal_attention
from nsarm_cli.models.nsarm.resolver import NsarmResolver
from nsarm_cli.perceptual.lpips import PerceptualDistance
from nsarm_cli.runtime import choose_dtype, window_generator
from nsarm_cli.weights.families import load_resolver

CPU = torch.device("cpu")
SAMPLE = 16
"""One query of so many tells which keys are attended to."""


@dataclass(frozen=True)
class Experiment:
    """One row of the table.

    Attributes:
        tokens: share of the last scale's tokens that pass through the transformer.
        keys: share of the keys of earlier scales that the last scale sees.
        restore: what becomes of the other tokens, "cached" or "nothing".
    """

    tokens: float = 1
    keys: float = 1
    restore: str = "cached"

    def __str__(self) -> str:
        if self.tokens < 1:
            return f"{self.tokens:.0%} of the tokens, {self.restore}"
        return "full" if self.keys == 1 else f"{self.keys:.0%} of the earlier keys"


@dataclass
class Result:
    """What an experiment gave: LPIPS by picture, seconds by window."""

    distances: list[float]
    last_scale: list[float]
    whole: list[float]


@contextmanager
def fewer_tokens(resolver: NsarmResolver, share: float, restore: str) -> Iterator[None]:
    """Let a share of the last scale's tokens pass through the transformer."""
    transformer, codec = resolver.transformer, resolver._codec  # noqa: SLF001
    full, plain_codes = transformer.hidden, codec.to_codes
    earlier: list[Tensor] = []
    kept: list[Tensor] = []

    def hidden(
        inputs: Sequence[Tensor], first: int, schedule: Any, rope: Tensor, *rest: Any, **more: Any
    ) -> Tensor:
        if first + 1 < len(schedule):
            earlier[:] = [full(inputs, first, schedule, rope, *rest, **more)]
            return earlier[0]
        (tokens,) = inputs
        length, begin = tokens.shape[1], schedule.offsets[first]
        score = (tokens - tokens.mean(dim=1, keepdim=True)).norm(dim=-1)[0]
        picks = score.topk(round(share * length)).indices.sort().values
        kept[:] = [picks]
        positions = torch.cat([rope[:, :begin], rope[:, begin:][:, picks]], dim=1)
        made = full([tokens[:, picks]], first, schedule, positions, *rest, **more)
        whole = _enlarged(earlier[0], schedule, first)
        whole[:, picks] = made
        return whole

    def to_codes(symbols: Tensor, grid: tuple[int, int]) -> Tensor:
        codes = plain_codes(symbols, grid)
        height, width = (side // resolver.config.patch for side in grid)
        seen = torch.zeros(height * width)
        seen[kept[0]] = 1
        mask = F.interpolate(seen.view(1, 1, height, width), size=grid, mode="nearest")
        return codes * mask

    with patch.object(transformer, "hidden", hidden):
        if restore == "nothing":
            with patch.object(codec, "to_codes", to_codes):
                yield
        else:
            yield


def _enlarged(hidden: Tensor, schedule: Any, k: int) -> Tensor:
    """Hidden states of scale k - 1, the last in "b l c", at the size of scale k."""
    (height, width), size = schedule.tokens[k - 1], schedule.tokens[k]
    maps = rearrange(hidden[:, -height * width :], "b (h w) c -> b c h w", h=height)
    if (height, width) != tuple(size):
        maps = F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
    return rearrange(maps, "b c h w -> b (h w) c").clone()


@contextmanager
def fewer_keys(share: float) -> Iterator[None]:
    """Let a scale that runs alone see a share of the keys of earlier scales."""

    def attention(
        queries: Tensor, keys: Tensor, values: Tensor, lengths: Sequence[int], scale: float
    ) -> Tensor:
        before = keys.shape[2] - queries.shape[2]
        if before == 0 or len(lengths) > 1:
            return block_causal_attention(queries, keys, values, lengths, scale)
        products = queries[:, :, ::SAMPLE] @ keys.transpose(-1, -2) * scale
        attended = products.float().softmax(-1)[..., :before].sum(2)
        picks = attended.topk(round(share * before)).indices.sort().values
        index = picks[..., None].expand(-1, -1, -1, keys.shape[-1])
        keys, values = (
            torch.cat([t.gather(2, index), t[:, :, before:]], dim=2) for t in (keys, values)
        )
        return block_causal_attention(queries, keys, values, lengths, scale)

    with patch("nsarm_cli.models.core.attention.block_causal_attention", attention):
        yield


@contextmanager
def changed(resolver: NsarmResolver, experiment: Experiment) -> Iterator[None]:
    """The model under an experiment."""
    if experiment.tokens < 1:
        with fewer_tokens(resolver, experiment.tokens, experiment.restore):
            yield
    elif experiment.keys < 1:
        with fewer_keys(experiment.keys):
            yield
    else:
        yield


def enlarge(resolver: NsarmResolver, lr: Tensor, note: Callable[[float, float], None]) -> Tensor:
    """Enlarge "3 h w", whole windows of it, telling seconds of the last scale and of a window."""
    side, scale = resolver.window, resolver.scale
    rows, columns = (length // side for length in lr.shape[1:])
    sr = torch.empty(3, scale * side * rows, scale * side * columns)
    for i in range(rows * columns):
        top, left = i // columns * side, i % columns * side
        ends: list[float] = []
        began = time.process_time()
        window = resolver.resolve(
            lr[None, :, top : top + side, left : left + side],
            [window_generator(0, i)],
            resolver.sampling,
            on_scale=lambda *_, ends=ends: ends.append(time.process_time()),
        )
        note(ends[-1] - ends[-2], time.process_time() - began)
        place = sr[:, scale * top : scale * (top + side), scale * left : scale * (left + side)]
        place.copy_(window[0])
    return sr


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--lr", type=Path, required=True)
    parser.add_argument("--hr", type=Path, required=True)
    parser.add_argument("--measure-weights", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=float, nargs="*", default=[0.75, 0.5, 0.25])
    parser.add_argument("--keys", type=float, nargs="*", default=[0.5, 0.25, 0.1])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    experiments = [
        Experiment(),
        *(Experiment(tokens=s, restore=r) for r in ("cached", "nothing") for s in args.tokens),
        *(Experiment(keys=share) for share in args.keys),
    ]
    resolver = load_resolver("nsarm-nano", CPU, choose_dtype("auto", CPU)[0])
    if not isinstance(resolver, NsarmResolver):
        raise TypeError("nsarm-nano is no NSARM model")
    lpips = PerceptualDistance.from_file(args.measure_weights / "lpips-alex.safetensors")
    results = {experiment: Result([], [], []) for experiment in experiments}
    names = sorted(path.name for path in find_images([args.lr]))[: args.limit]
    for name in names:
        lr, hr = (to_tensor(to_rgb(Image.open(folder / name))) for folder in (args.lr, args.hr))
        for experiment, result in results.items():

            def note(last: float, whole: float, result: Result = result) -> None:
                result.last_scale.append(last)
                result.whole.append(whole)

            with torch.inference_mode(), changed(resolver, experiment):
                sr = enlarge(resolver, lr, note)
                reference = hr[None, :, : sr.shape[1], : sr.shape[2]]
                result.distances.append(lpips(sr[None], reference).item())
    show(results, results[experiments[0]])


def show(results: dict[Experiment, Result], full: Result) -> None:
    """Print a row for each experiment."""
    print(f"{'':32} {'LPIPS':>7} {'difference':>18} {'last scale, s':>14} {'window, s':>10}")
    for experiment, result in results.items():
        pairs = zip(result.distances, full.distances, strict=True)
        differences = [ours - theirs for ours, theirs in pairs]
        spread = statistics.stdev(differences) if len(differences) > 1 else 0
        error = 2 * spread / len(differences) ** 0.5
        print(
            f"{experiment!s:32} {statistics.mean(result.distances):7.4f} "
            f"{statistics.mean(differences):+9.4f} ± {error:.4f} "
            f"{statistics.median(result.last_scale):14.3f} {statistics.median(result.whole):10.3f}"
        )


if __name__ == "__main__":
    main()
