"""Deterministic weights for the VARSR goldens.  numpy only.

Every tensor is a pure function of (state-dict name, shape):

    g = numpy.random.Generator(numpy.random.Philox(key=zlib.crc32(name.encode())))
    w = (g.standard_normal(shape, dtype=float64) * std + mean).astype(float32)

where (mean, std) come from `rule(name, shape)` below.  The names are the ones
of upstream's own state dicts (VQVAE and VAR_RoPE do not share any name, so no
prefix is used).  Structural buffers (STRUCTURAL) are not drawn: they are what
the architecture says they are.

The gains keep activations O(1) through the network so that logits have useful
margins; they do not imitate trained weights.
"""

import math
import zlib

import numpy as np

# buffers in upstream's state dicts that are derived, never drawn
STRUCTURAL = ("lvl_1L", "attn_bias_for_masking")
# buffers / tensors that are all-zero
ZEROS = ("zero_k_bias", "quantize.ema_vocab_hit_SV")


def rule(name, shape):  # noqa: PLR0911, PLR0912  (one line per kind of tensor)
    """-> (mean, std) for this tensor, or None when it is structural."""
    if name.endswith(STRUCTURAL):
        return None
    if name.endswith(ZEROS):
        return 0.0, 0.0
    nd = len(shape)
    if name.endswith(
        "scale_mul_1H11"
    ):  # log of the q scale (upstream initialises log 4, clamps at log 100)
        return 3.0, 0.8
    if name.endswith("attn.proj.weight"):  # strong, so that tokens differ by position
        return 0.0, 4.0 / math.sqrt(shape[1])
    if name == "word_embed.weight":
        return 0.0, 3.0 / math.sqrt(shape[1])
    if name == "head_nm.ada_lin.1.weight":
        return 0.0, 0.1 / math.sqrt(shape[1])
    if name == "head_nm.ada_lin.1.bias":
        return 0.0, 0.1
    if name == "quantize.embedding.weight":  # codebook
        return 0.0, 0.6
    if name == "class_emb.weight":
        return 0.0, 0.7
    if name in ("lvl_embed.weight", "pos_start"):
        return 0.0, 0.6
    if name.endswith(("q_bias", "v_bias")):
        return 0.0, 0.1
    if name.endswith(("ada_lin.1.bias", "adaLN_modulation.1.bias")):
        return 0.0, 0.2
    if name.endswith(("ada_lin.1.weight", "adaLN_modulation.1.weight")):
        return 0.0, 0.5 / math.sqrt(shape[1])
    if name.endswith(".bias"):
        return 0.0, 0.05
    if nd == 1:  # LayerNorm / GroupNorm gain
        return 1.0, 0.1
    if name == "head.weight":
        return 0.0, 2.0 / math.sqrt(shape[1])
    if nd == 4:  # convolutions
        gain = 2.15 if name.startswith("con_embedding.") else 1.0
        return 0.0, gain / math.sqrt(shape[1] * shape[2] * shape[3])
    if nd == 2:  # linear layers [out, in]
        return 0.0, 1.0 / math.sqrt(shape[1])
    raise KeyError(f"no rule for {name} {shape}")


def gaussian(name, shape):
    """Standard normal float64 keyed by a name; also used for inputs and noise."""
    g = np.random.Generator(np.random.Philox(key=zlib.crc32(name.encode())))
    return g.standard_normal(tuple(shape))


def tensor(name, shape):
    r = rule(name, shape)
    if r is None:
        raise KeyError(f"{name} is structural, build it from the architecture")
    mean, std = r
    if std == 0.0:
        return np.full(tuple(shape), mean, dtype=np.float32)
    return (gaussian(name, shape) * std + mean).astype(np.float32)


def image(name, size, batch=1):
    """uint8 [batch, size, size, 3] test picture: smooth gradients, edges and some noise."""
    out = np.zeros((batch, size, size, 3), dtype=np.uint8)
    for b in range(batch):
        p = gaussian(f"{name}.{b}", (3, 8))
        y, x = np.meshgrid(np.arange(size) / size, np.arange(size) / size, indexing="ij")
        for c in range(3):
            a = p[c]
            v = 0.5 + 0.22 * np.sin(2 * np.pi * (a[0] * x + a[1] * y) + a[2])
            v = v + 0.18 * np.sin(2 * np.pi * (3 * a[3] * x - 4 * a[4] * y) + a[5])
            v = v + 0.15 * ((x - 0.5 - 0.1 * a[6]) ** 2 + (y - 0.5 - 0.1 * a[7]) ** 2 < 0.06)
            n = gaussian(f"{name}.{b}.noise.{c}", (size, size)) * 0.02
            out[b, :, :, c] = np.clip(np.rint((v + n) * 255.0), 0, 255).astype(np.uint8)
    return out


def box_down_up(img, factor):
    """Cheap numpy-only 'low quality' partner of `image`: box down, nearest up, re-rounded."""
    b, h, w, c = img.shape
    f = img.astype(np.float64).reshape(b, h // factor, factor, w // factor, factor, c).mean((2, 4))
    f = np.repeat(np.repeat(np.rint(f), factor, 1), factor, 2)
    return f.astype(np.uint8)
