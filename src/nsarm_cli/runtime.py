"""Where and in which precision a model runs, with the reason; its memory; seeded generators.

A choice comes with the reason for it, so that the command line can say why a run
is slow or which card it took.
"""

import ctypes
import platform
from hashlib import blake2b
from pathlib import Path

import torch

from nsarm_cli.errors import DeviceError

PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}

_NATIVE_BF16 = ("avx512_bf16", "amx_bf16", "sve_bf16", "bf16")
"""Names of processor features with bf16 arithmetic, x86 and ARM."""

_NATIVE_FP16 = ("avx512_fp16", "amx_fp16")
"""The same for fp16, x86 alone."""


def choose_device(name: str = "auto") -> tuple[torch.device, str]:
    """Turn the name of a device into a device that exists.

    Args:
        name: "auto" (a CUDA GPU, else Apple's, else the processor), "cpu", "cuda",
            "cuda:N" or "mps".

    Returns:
        The device, and the reason for it in a few words.

    Raises:
        DeviceError: the name is unknown, or this machine has no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0), f"found {torch.cuda.get_device_name(0)}"
        if torch.backends.mps.is_available():
            return torch.device("mps"), "found an Apple GPU"
        return torch.device("cpu"), "found no GPU that PyTorch can use"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise DeviceError(
            f"device {name!r} is unknown: choose auto, cpu, cuda, cuda:N (N counts from 0) or mps"
        )
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        device = torch.device("cuda", device.index or 0)
        if device.index >= count:
            raise DeviceError(
                f"device {name!r} does not exist: PyTorch finds {count} CUDA GPUs here; "
                "choose another number, or run with --device cpu"
            )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(
            f"device {name!r} does not exist: PyTorch finds no Apple GPU here; "
            "run with --device cpu"
        )
    return device, "as asked"


def choose_dtype(precision: str, device: torch.device) -> tuple[torch.dtype, str]:
    """Turn the name of a precision into the type of the weights and the arithmetic.

    Args:
        precision: "auto" (bf16 where the device computes it natively, else fp32),
            "bf16", "fp16" or "fp32".
        device: where the model will run.

    Returns:
        The type, and the reason for it in a few words.

    Raises:
        DeviceError: the precision is unknown.
    """
    if precision in PRECISIONS:
        slow = precision == "fp16" and device.type == "cpu" and _lacks_fp16()
        remark = ", but this processor has no fp16: fp32 is much faster" if slow else ""
        return PRECISIONS[precision], f"as asked{remark}"
    if precision != "auto":
        raise DeviceError(
            f"precision {precision!r} is unknown: choose auto, {', '.join(PRECISIONS)}"
        )
    if device.type == "cuda":
        with torch.cuda.device(device):  # PyTorch asks the current one
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        if native:
            return torch.bfloat16, "the GPU has native bf16"
        return torch.float32, "the GPU has no native bf16"
    if device.type == "cpu":
        if _processor_has(_NATIVE_BF16):
            return torch.bfloat16, "the processor has native bf16"
        return torch.float32, "the processor has no native bf16"
    return torch.float32, "the safe choice on this device"


def _lacks_fp16() -> bool:
    """Whether fp16 is emulated here, which takes tens of times as long; known of x86 alone."""
    return _processor_has(("sse2",)) and not _processor_has(_NATIVE_FP16)


def _processor_has(names: tuple[str, ...]) -> bool:
    """Whether this processor has one of some features; an emulated type is slower than fp32."""
    query = getattr(torch.cpu, "get_capabilities", None)  # not in the oldest PyTorch we accept
    if query is not None:
        features = query()
        return any(features.get(name, False) for name in names)
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    except OSError:  # not Linux
        return False
    return any(name in flags for name in names)


def keep_freed_memory() -> bool:
    """Let the C library keep freed memory for the tensors to come, in this process, to its end.

    Large tensors otherwise come fresh from the system each time, which fills every page with zeros
    first. It is for programs that run a model on a processor, not for a library to decide.

    Returns:
        Whether this is so now: the library is glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    never_trim, no_maps_of_its_own = (-1, -1), (-4, 0)  # M_TRIM_THRESHOLD, M_MMAP_MAX
    return all(mallopt(*option) == 1 for option in (never_trim, no_maps_of_its_own))


def window_generator(seed: int, index: int) -> torch.Generator:
    """Make the random generator of one window.

    The state is the first 63 bits of BLAKE2b over the text "seed:index". A window's draws
    thus depend on nothing but the two numbers: not on the batch that it shares, the device,
    or the windows before it; and neighbouring seeds or windows have unrelated streams.

    Args:
        seed: any integer; the user's seed.
        index: the window's place in the picture, row by row from 0.

    Returns:
        A CPU generator.
    """
    digest = blake2b(f"{seed}:{index}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)
