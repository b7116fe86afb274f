"""Drawing classes from logits: top-k and top-p filtering, guidance, seeded draws.

Letters: v classes (2 for a bit); leading dimensions are free.
"""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor


def filter_logits(logits: Tensor, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Set unlikely classes to minus infinity.

    Args:
        logits: "... v", already divided by the temperature.
        top_k: keep classes at least as likely as the k-th; 0 keeps all.
        top_p: drop the least likely classes while their probabilities sum to at most
            1 - top_p, but never the likeliest; 1 keeps all.

    Returns:
        "... v".
    """
    if 0 < top_k < logits.shape[-1]:
        threshold = logits.topk(top_k, dim=-1).values[..., -1:]
        logits = logits.masked_fill(logits < threshold, -torch.inf)
    if top_p < 1:
        ascending, order = logits.sort(dim=-1)
        unlikely = ascending.softmax(-1).cumsum(-1) <= 1 - top_p
        unlikely[..., -1] = False
        logits = logits.masked_fill(unlikely.scatter(-1, order, unlikely), -torch.inf)
    return logits


def exponential_noise(shape: Sequence[int], generator: Generator) -> Tensor:
    """Exponential numbers from a CPU generator; the randomness behind one draw per row."""
    return torch.empty(tuple(shape), dtype=torch.float32).exponential_(generator=generator)


def sent(numbers: Tensor, device: torch.device) -> Tensor:
    """Numbers drawn on the processor, on a device, without waiting for what it is doing.

    A GPU fetches them on its own from memory that stays where it is (pinned); from other memory
    the processor would have to wait until the work before is done.
    """
    if device.type == "cuda":
        numbers = numbers.pin_memory()
    return numbers.to(device, non_blocking=True)


def draw(probabilities: Tensor, noise: Tensor) -> Tensor:
    """Pick a class per row so that class i comes up with its probability.

    argmax(p / e) with exponential e is what `torch.multinomial` computes for one sample;
    taking e as an argument makes the draw independent of batch and device.

    Args:
        probabilities: "... v".
        noise: "... v", from `exponential_noise`.

    Returns:
        Class indices, "...".
    """
    return (probabilities / noise).argmax(-1)


def mix_guidance(conditional: Tensor, unconditional: Tensor, weight: float | Tensor) -> Tensor:
    """Classifier-free guidance: weight 1 gives the conditional, above 1 exaggerates it."""
    return weight * conditional + (1 - weight) * unconditional
