"""Put tensors into a module; every name and shape must agree."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor, nn

from nsarm_cli.errors import WeightsError

_SHOWN = 3


class Shaped(Protocol):
    """A tensor in memory or in a file."""

    @property
    def shape(self) -> Sequence[int]:
        """Its lengths."""
        ...


def load_strictly(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Assign tensors to the parameters and buffers of the same names.

    Args:
        module: may be on the meta device; the tensors take the parameters' places.
        tensors: by name.
        source: the file, for messages.

    Raises:
        WeightsError: names an unknown, missing or misshapen tensor.
    """
    check_names_and_shapes(module, tensors, source)
    module.load_state_dict(dict(tensors), strict=True, assign=True)


def check_names_and_shapes(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Raise a WeightsError unless the tensors are exactly the module's."""
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    check_tensors(wanted, tensors, source)


def check_tensors(
    wanted: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Shaped], source: str
) -> None:
    """Raise a WeightsError unless the tensors have exactly the names and shapes wanted."""
    missing = [name for name in wanted if name not in tensors]
    unknown = [name for name in tensors if name not in wanted]
    misshapen = [
        f"{name} is {tuple(tensors[name].shape)} instead of {shape}"
        for name, shape in wanted.items()
        if name in tensors and tuple(tensors[name].shape) != shape
    ]
    faults = [
        f"{what}: {_some(names)}"
        for what, names in (("missing", missing), ("unknown", unknown), ("misshapen", misshapen))
        if names
    ]
    if faults:
        raise WeightsError(
            f"{source}: tensors do not belong to this model ({'; '.join(faults)}); "
            "use the configuration the weights were made with"
        )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
