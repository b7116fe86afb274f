"""Settings of a training run, one class per stage; `settings_file` reads them from TOML."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar

from nsarm_cli.errors import ConfigError
from nsarm_cli.training.limits import check_ratios, check_values

PROMPT = "A high-quality image with harmonious colors and rich details."
"""The fixed prompt of the paper (Table 3)."""


def _ratios() -> Any:
    return field(default=(1.0,), metadata={"item": float})


@dataclass(frozen=True)
class RunConfig:
    """What every stage of any family has.

    Attributes:
        model: name of a preset configuration, or a model folder to start from.
        steps: updates in all.
        batch: crops per update.
        crop: side of the high-resolution crops, in pixels.
        shrink: crops are taken from pictures reduced by up to this factor.
        framing: "crop" takes random parts of the pictures; "whole" reduces or enlarges a picture
            until it just covers the crop and takes the middle, as the base project does.
        margin: with framing "whole", the picture's shorter side is so many times the crop's.
        turns: "all" flips and turns crops by quarters, "mirror" only swaps left and right,
            "none" does neither.
        corrupt: unreadable pictures, or lines of lists, that are passed over before the run stops.
        per_shard: pictures that a process takes from a shard from elsewhere before the next.
        degradation: name of the recipe that makes the low-resolution side.
        lr: peak learning rate of AdamW.
        final_lr: learning rate at the end, as a share of the peak.
        warmup: updates of linear warm-up.
        hold: share of the updates after the warm-up that keep the peak before the fall.
        decay: shape of the fall, "linear" or "cosine".
        betas: of AdamW.
        weight_decay: of matrices and kernels only.
        clip: largest norm of the gradient.
        accumulate: parts that a process computes one after the other and sums the gradients
            of, before each update; more parts need less memory for activations.
        ema: weight of the past in the moving average of the trained parameters, which is then
            what validation sees; 0 keeps none.
        attention: of the transformer over all scales at once: "sdpa" calls PyTorch's kernel once
            per scale; "flex" computes all scales in one kernel, FlexAttention, on CUDA GPUs.
            Neither stores a mask of all tokens by all tokens.
        recompute: activations that are computed again in the backward pass to save memory, block
            by block: "none", "selective" (what is cheap) or "full" (everything).
        offload: keep activations that wait for the backward pass in the memory of the machine
            instead of the device's; slow, and of use with recompute = "full".
        compile: compile the transformer's blocks, which takes a minute and then is faster.
        precision: "bf16" computes under autocast with fp32 master weights; or "fp32".
        seed: of data and initial weights.
        workers: processes that prepare batches.
        save_minutes: between checkpoints.
        keep: how many of the newest checkpoints stay.
        validate_every: updates between validations.
        validate_batches: batches of the fixed validation set.
        perceptual_weights: safetensors file of LPIPS, for validation, and for training where
            `perceptual` is above 0; "" does without.
        log_every: updates between lines on the terminal and points of curves.
        tracker: of curves: "tensorboard", "wandb", "trackio", "none"; "auto" is the first if there.
    """

    model: str = "nsarm-nano"
    steps: int = 1000
    batch: int = 8
    crop: int = 128
    shrink: float = 2.0
    framing: str = "crop"
    margin: float = 1.0
    turns: str = "all"
    corrupt: int = 10
    per_shard: int = 1000
    degradation: str = "realesrgan-light"
    lr: float = 3e-4
    final_lr: float = 0.0
    warmup: int = 100
    hold: float = 0.0
    decay: str = "linear"
    betas: tuple[float, float] = (0.9, 0.97)
    weight_decay: float = 0.005
    clip: float = 2.0
    accumulate: int = 1
    ema: float = 0.0
    attention: str = "sdpa"
    recompute: str = "none"
    offload: bool = False
    compile: bool = False
    precision: str = "bf16"
    seed: int = 0
    workers: int = 1
    save_minutes: float = 5.0
    keep: int = 2
    validate_every: int = 500
    validate_batches: int = 4
    perceptual_weights: str = ""
    log_every: int = 20
    tracker: str = "auto"

    degrades: ClassVar[bool] = True
    """Whether the stage needs low-resolution pictures."""

    @property
    def templates(self) -> tuple[float, ...]:
        """Aspect ratios of the crops, height by width."""
        return (1.0,)

    @property
    def reads_captions(self) -> bool:
        """Whether batches carry captions."""
        return False

    @property
    def poor_share(self) -> float:
        """Probability that a picture of a batch is one of poor quality."""
        return 0.0

    def __post_init__(self) -> None:
        check_values(dataclasses.asdict(self))


@dataclass(frozen=True)
class PartsConfig(RunConfig):
    """What the stages of NSARM have, whose model may be put together from several.

    Attributes:
        autoencoder_from: model folder whose autoencoder replaces that of `model`; "" keeps it.
        transformation_from: the same for the transformation network.
        transformer_from: the same for the transformer and its condition.
    """

    autoencoder_from: str = ""
    transformation_from: str = ""
    transformer_from: str = ""


@dataclass(frozen=True)
class TokenizerConfig(PartsConfig):
    """Training of the autoencoder and its bits.

    Attributes:
        pixel: weight of the mean absolute pixel error.
        perceptual: weight of LPIPS; above 0 it needs `perceptual_weights`.
        perceptual_from: first update that uses LPIPS.
        commitment: weight of the distance of latents to their codes.
        entropy: weight of the entropy terms (sure bits, used bits).
        sharpness: inverse temperature of the soft bits in the entropy terms.
        ratios: aspect ratios of the crops, height by width, such as 1.0 and 0.75; each picture
            goes to the nearest.
    """

    degrades = False

    pixel: float = 1.0
    perceptual: float = 0.0
    perceptual_from: int = 0
    commitment: float = 0.25
    entropy: float = 0.02
    sharpness: float = 10.0
    ratios: tuple[float, ...] = _ratios()

    @property
    def templates(self) -> tuple[float, ...]:
        """Aspect ratios of the crops, height by width."""
        return self.ratios

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ratios(self.ratios)


@dataclass(frozen=True)
class Stage1Config(PartsConfig):
    """Training of the transformation network (NSARM section 3, Eq. 4)."""


@dataclass(frozen=True)
class BitsConfig(PartsConfig):
    """What both stages of the transformer have.

    Attributes:
        flip: largest share of bits flipped per scale (self-correction); 0 is off.
        flip_scales: numbers of the scales whose bits are flipped, the coarsest is 0; an empty
            list means every scale that the transformer predicts.
        resize: how the next scale's input is made, "area" as in inference or "trilinear" as
            Infinity was trained (over one frame, which is bilinear).
        reweight: weigh the tokens of each scale by 1/side rather than alike.
        text_encoder: folder of a T5 encoder that reads captions on the way; "" reads none.
        features: folder of what `nsarm train features` wrote, in place of an encoder.
        caption_drop: probability that a caption is replaced by the learned unconditional one.
        short_captions: probability of the short caption of a picture that has one.
        prompt: what a picture without a caption is given.
    """

    flip: float = 0.1
    flip_scales: tuple[int, ...] = field(default=(), metadata={"item": int, "like": (7, 8)})
    resize: str = "area"
    reweight: bool = False
    text_encoder: str = ""
    features: str = ""
    caption_drop: float = 0.1
    short_captions: float = 0.0
    prompt: str = PROMPT

    @property
    def reads_captions(self) -> bool:
        """Whether batches carry captions."""
        return bool(self.text_encoder or self.features)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resize not in {"area", "trilinear"}:
            raise ConfigError(f'resize is "{self.resize}"; choose "area" or "trilinear"')
        if not 0 <= self.flip < 0.5:
            raise ConfigError(f"flip is {self.flip}; give a share from 0 to below 0.5")
        if self.text_encoder and self.features:
            raise ConfigError("text_encoder and features are both given; give one of them")
        for name in ("caption_drop", "short_captions"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; give a probability")
        if any(scale < 0 for scale in self.flip_scales):
            raise ConfigError(f"flip_scales is {list(self.flip_scales)}; give numbers from 0 on")


@dataclass(frozen=True)
class PriorConfig(BitsConfig):
    """Training of the transformer on pictures alone, without low-resolution ones (Infinity).

    Attributes:
        ratios: aspect ratios of the crops, height by width, such as 1.0 and 0.75; each picture
            goes to the nearest.
    """

    degrades = False

    ratios: tuple[float, ...] = _ratios()

    @property
    def templates(self) -> tuple[float, ...]:
        """Aspect ratios of the crops, height by width."""
        return self.ratios

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ratios(self.ratios)


@dataclass(frozen=True)
class Stage2Config(BitsConfig):
    """Training of the transformer on labels modified by the transformed scales (Alg. 2).

    Attributes:
        lora: rank of the matrices that learn in place of the large ones, which are frozen and
            kept in `precision` (LoRA); 0 trains everything.
        lora_scale: factor on their product.
    """

    lora: int = 0
    lora_scale: float = 1.0


@dataclass(frozen=True)
class DecoderConfig(PartsConfig):
    """Adaptation of the decoder to the bits that the whole model samples.

    Attributes:
        pixel: weight of the mean absolute pixel error.
        perceptual: weight of LPIPS; above 0 it needs `perceptual_weights`.
        dists: weight of DISTS; above 0 it needs `dists_weights`.
        dists_weights: safetensors file of DISTS, for validation, and for training where `dists`
            is above 0; "" does without.
        dists_crop: side of the square of each picture that DISTS sees in training, another one
            at each update; its network costs more than all else.
        pattern: weight of a grid that repeats with the blocks of pixels that the decoder unfolds;
            above 0 it needs a decoder that unfolds some, and 8 or more along a side of a window.
        temperature: of the sampled bits; 0 is greedy.
        adversarial: gradient of a patch discriminator's score at the last layer, relative to
            that of all other terms of the picture; 0 does without.
        adversarial_from: first update that the score pushes; before, the discriminator looks on.
        transformation: the transformation network learns too, from the same losses, through
            the sum of codes as if it were not quantised.
        anchor: weight of stage 1's loss, which then keeps its prediction near the latents.
    """

    pixel: float = 1.0
    perceptual: float = 0.0
    dists: float = 0.0
    dists_weights: str = ""
    dists_crop: int = 128
    pattern: float = 0.0
    temperature: float = 0.5
    adversarial: float = 0.0
    adversarial_from: int = 0
    transformation: bool = False
    anchor: float = 1.0
