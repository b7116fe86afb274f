"""From the low-resolution picture to the enlarged one, against the authors' code."""

import numpy as np
import pytest
import torch
from torch import Tensor

from nsarm_cli.imaging.tensors import to_image
from nsarm_cli.models.core.generate import Guidance, generate
from nsarm_cli.models.core.rope import rope_table
from nsarm_cli.models.varsr.codec import IndexCodec
from nsarm_cli.models.varsr.config import GOOD, POOR, VARSR
from nsarm_cli.models.varsr.diffusion import Diffusion, spaced

CPU = torch.device("cpu")
# Values are about 1, logits up to 30; sums in another order differ in the sixth digit.
TOLERANCE = 1e-4
STRENGTH = 6.0


def test_rotary_positions_are_the_recorded_ones(small_case, golden):
    recorded = golden("varsr/rope")
    schedule = VARSR.schedule
    grids = [schedule.prefix, *schedule.tokens]
    for width, every in ((16, 1), (64, 7)):
        table = rope_table(grids, width, schedule.position_grid, lambda position: position)
        assert recorded.difference(f"hd{width}.cos", table[0, ::every]) < 1e-5
        assert recorded.difference(f"hd{width}.sin", table[1, ::every]) < 1e-5
    model = small_case.model
    table = model.transformer.rope(model.config.schedule, CPU)
    assert recorded.difference("small.cos", table[0]) < 1e-5
    assert recorded.difference("small.sin", table[1]) < 1e-5


@pytest.fixture
def trace_of_run(recorded_noise):
    """Run a case as its resolver does, but with the recorded noise; keep what it goes through."""

    def run(case) -> dict[str, Tensor]:
        model, schedule, batch = case.model, case.model.config.schedule, len(case.lr)
        steps = Diffusion.over(spaced(10))
        prefix = model.prefix_tokens(case.lr)
        labels = torch.tensor([GOOD] * batch + [POOR] * batch)
        condition = model.condition(labels, prefix.repeat(2, 1, 1))
        kept: dict[str, Tensor] = {"prefix": prefix}
        codec = Recording(model.tokenizer.quantiser, kept)
        outputs: list[list[Tensor]] = [[] for _ in model.transformer.blocks]
        handles = [
            block.register_forward_hook(lambda _m, _x, out, to=to: to.append(out))
            for block, to in zip(model.transformer.blocks, outputs, strict=True)
        ]
        generated = generate(
            model.transformer,
            schedule,
            model.pyramid,
            codec,
            known=[],
            condition=model.transformer.prepare(condition),
            rope=model.transformer.rope(schedule, CPU),
            generators=[torch.Generator()] * batch,
            sampling=model.config.sampling,
            guidance=Guidance.ramp(STRENGTH, len(schedule)),
        )
        for handle in handles:
            handle.remove()
        kept |= {
            f"s{k}.block{i}.out": out for i, to in enumerate(outputs) for k, out in enumerate(to)
        }
        cells, channels = schedule.lengths[-1], model.config.tokenizer.channels
        shapes = [(batch * cells, channels)] + [(2 * batch * cells, channels)] * 10
        noise = recorded_noise(f"{model.config.name}.infer", shapes, (batch, cells, channels))
        codes = codec.codes_of(generated.symbols)
        kept["hidden"] = generated.hidden
        kept["conditions"] = model.refiner_conditions(generated.hidden, codes)
        kept["residual"] = model.refiner.sample(kept["conditions"], steps, noise, STRENGTH)
        kept["feature"] = model.refined(generated.feature, kept["residual"])
        kept["picture"] = model.decode(kept["feature"])
        return kept

    return run


class Recording(IndexCodec):
    """Keeps the guided logits and indices of every scale, and the sums that become inputs."""

    def __init__(self, quantiser, kept: dict[str, Tensor]) -> None:
        super().__init__(quantiser)
        self.quantiser, self.kept, self.scale = quantiser, kept, 0

    def draw(self, logits, sampling, generators):
        indices = super().draw(logits, sampling, generators)
        self.kept |= {f"s{self.scale}.guided_logits": logits, f"s{self.scale}.idx": indices}
        self.scale += 1
        return indices

    def to_tokens(self, feature):
        self.kept[f"s{self.scale - 1}.next_map"] = feature
        return super().to_tokens(feature)

    def codes_of(self, indices):
        return self.quantiser.codebook(indices)


def test_a_whole_run_is_the_recorded_one(case, trace_of_run):
    recorded, ours = case.recorded("infer"), trace_of_run(case)
    small, last = case.model.config.name == "small", len(case.model.config.sides) - 1
    prefix = ours["prefix"].transpose(1, 2)
    assert recorded.difference("prefix.tokens_BCHW", prefix) < TOLERANCE
    every = 1 if small else 64
    for i in range(3):
        name = f"s0.block{i}.out" if small else f"s0.block{i}.out_every{every}"
        assert recorded.difference(name, ours[f"s0.block{i}.out"][:, ::every]) < TOLERANCE
    for k in range(last + 1):
        assert torch.equal(ours[f"s{k}.idx"], recorded[f"s{k}.idx"].long()), k
        logits = ours[f"s{k}.guided_logits"]
        thinned = not small and k >= 8
        name = f"s{k}.guided_logits" + ("_every4" if thinned else "")
        # Guidance multiplies the difference of two branches by up to 13.
        within = 20 * TOLERANCE
        assert recorded.difference(name, logits[:, ::4] if thinned else logits) < within
        if k < last:
            assert recorded.difference(f"s{k}.next_map", ours[f"s{k}.next_map"]) < TOLERANCE
    conditions = ours["conditions"] if small else ours["conditions"][:, ::4]
    assert recorded.difference("refiner.decoder_norm_out", conditions) < TOLERANCE
    picture = (ours["picture"] + 1) / 2
    assert recorded.difference("final.f_hat", ours["feature"]) < 5e-4
    if small:
        assert recorded.difference("final.image01", picture) < 5e-4
    else:
        crop = picture[..., 240:272, 240:272]
        assert recorded.difference("final.image01_crop32_f32", crop) < 5e-4
        pixels = torch.from_numpy(np.array(to_image(ours["picture"][0])))[::8, ::8]
        theirs = recorded["final.image_u8.every8"][0]
        assert (pixels.int() - theirs.int()).abs().max() <= 1
