"""One picture in, one picture several times as large out.

The picture is cut into overlapping windows, a model enlarges them in batches, each gets the
colours of its input, and the blended rows go straight into the output: memory holds the two
pictures, one row of windows and one batch.
"""

from collections.abc import Callable, Sequence
from itertools import batched
from typing import Self

import torch
from PIL import Image
from torch import Tensor

from nsarm_cli.errors import DeviceError
from nsarm_cli.imaging.color import match_color
from nsarm_cli.imaging.rgb import to_rgb
from nsarm_cli.imaging.tensors import to_image, to_tensor
from nsarm_cli.imaging.tiles import RowBlender, cut, pad_to_window, plan
from nsarm_cli.models.interface import Sampling, SuperResolver, Trace
from nsarm_cli.runtime import choose_device, choose_dtype, window_generator
