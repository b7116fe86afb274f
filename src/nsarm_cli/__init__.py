"""Super-resolution of real photographs with bitwise next-scale autoregression.

    from nsarm_cli import Upscaler

    sharp = Upscaler.from_pretrained("nsarm-nano").upscale(picture)

The public names are imported on first use, so `import nsarm_cli` and
`nsarm --help` do not wait for PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nsarm_cli.errors import NsarmError
    from nsarm_cli.models.interface import Sampling
    from nsarm_cli.pipeline import Upscaler

__version__ = "0.1.0"

__all__ = ["NsarmError", "Sampling", "Upscaler", "__version__"]

_HOMES = {
    "NsarmError": "nsarm_cli.errors",
    "Sampling": "nsarm_cli.models.interface",
    "Upscaler": "nsarm_cli.pipeline",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
