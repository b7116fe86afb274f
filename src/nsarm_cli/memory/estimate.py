"""From counts of numbers and the settings of a run to bytes."""

from dataclasses import dataclass

from nsarm_cli.memory.settings import MemorySettings, Offload, Quantize
from nsarm_cli.models.core.memory import MemoryNeeds, Moment, Network

GIB = 2**30

PINNED = 1.05
"""Pinned memory comes in powers of two, and the last of them is not always full; see `pinned`."""

_WIDE = 4
_INT4_GROUP = 128
"""Neighbouring numbers of a row that share a scale and a zero."""


@dataclass(frozen=True)
class MomentBytes:
    """What is on the device at one moment of a run, in bytes."""

    name: str
    weights: int
    cache: int
    activations: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.cache + self.activations


@dataclass(frozen=True)
class Estimate:
    """What a run takes.

    Attributes:
        moments: on the device, in order.
        host: bytes in main memory for what waits there.
    """

    moments: tuple[MomentBytes, ...]
    host: int

    @property
    def fullest(self) -> MomentBytes:
        """The moment that decides."""
        return max(self.moments, key=lambda moment: moment.total)

    @property
    def peak(self) -> int:
        """Bytes on the device at the fullest moment."""
        return self.fullest.total


def estimate(needs: MemoryNeeds, settings: MemorySettings, *, guided: bool = False) -> Estimate:
    """Work out what a run takes.

    Args:
        needs: of the model.
        settings: of the run.
        guided: whether guidance is on, which doubles what the transformer holds.
    """
    moments = tuple(_moment(needs, moment, settings, guided=guided) for moment in needs.moments)
    waiting = 0
    if settings.offload is not Offload.NONE:
        # What leaves the device has its place there for good: it comes as a copy.
        waiting = sum(weight_bytes(n, settings) for n in needs.networks if not n.blocks)
    if settings.offload in {Offload.WEIGHTS, Offload.ALL}:
        waiting += sum((n.blocks - settings.resident) * _block(n, settings) for n in needs.networks)
    host = int(waiting * PINNED)
    if settings.offload is Offload.ALL:
        host += max(_cache(moment, settings, guided=guided) for moment in needs.moments)
    return Estimate(moments, host)


def _moment(
    needs: MemoryNeeds, moment: Moment, settings: MemorySettings, *, guided: bool
) -> MomentBytes:
    size = settings.dtype.itemsize
    copies = 1 if moment.single else settings.batch
    if guided and moment.branched:
        copies *= 2
    cache = _cache(moment, settings, guided=guided)
    blocks = max(n.blocks for n in needs.networks)
    if settings.offload is Offload.ALL and blocks:
        cache //= blocks
    return MomentBytes(
        moment.name,
        sum(_on_device(n, moment, settings) for n in needs.networks),
        cache,
        copies * (moment.plain * size + moment.wide * _WIDE),
    )


def _cache(moment: Moment, settings: MemorySettings, *, guided: bool) -> int:
    branches = 2 if guided and moment.branched else 1
    return settings.batch * branches * moment.cache * settings.dtype.itemsize


def _on_device(network: Network, moment: Moment, settings: MemorySettings) -> int:
    """Bytes of a network on the device at a moment."""
    if settings.offload is Offload.NONE:
        return weight_bytes(network, settings)
    at_work = network.name in moment.networks
    if not network.blocks:
        return weight_bytes(network, settings) if at_work else 0
    if settings.offload is Offload.IDLE:
        return weight_bytes(network, settings)
    stay = settings.resident * _block(network, settings)
    passing = _block(network, settings) if at_work else 0
    return _outside(network, settings) + stay + passing


def weight_bytes(network: Network, settings: MemorySettings) -> int:
    """Bytes of all weights of a network."""
    return _outside(network, settings) + network.blocks * _block(network, settings)


def _outside(network: Network, settings: MemorySettings) -> int:
    return network.plain * settings.dtype.itemsize + network.wide * _WIDE


def _block(network: Network, settings: MemorySettings) -> int:
    """Bytes of one block; the scales of quantised matrices are counted too."""
    size = settings.dtype.itemsize
    rest = (network.block - network.linear) * size
    match settings.quantize:
        case Quantize.NONE:
            return network.block * size
        case Quantize.INT8:
            return rest + network.linear + network.rows * (_WIDE + 1)  # a scale and a zero
        case Quantize.FP8:
            return rest + network.linear + network.rows * _WIDE
        case Quantize.INT4:
            return rest + network.linear // 2 + 2 * size * network.linear // _INT4_GROUP
