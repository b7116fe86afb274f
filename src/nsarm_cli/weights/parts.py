"""One part of a model folder, for a model that is put together from several."""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from nsarm_cli.errors import WeightsError
from nsarm_cli.weights.shards import WEIGHTS_FILE
from nsarm_cli.weights.strict import check_names_and_shapes


def load_part(module: nn.Module, folder: Path, name: str) -> None:
    """Copy the tensors of a part, in the types that the module has.

    Args:
        module: the part.
        folder: with the safetensors files of a model.
        name: of the part; its tensors' names begin with it and a dot.

    Raises:
        WeightsError: no weights, damaged ones, or a part of another shape.
    """
    paths = sorted(folder.glob(f"{WEIGHTS_FILE.partition('.')[0]}*.safetensors"))
    if not paths:
        raise WeightsError(
            f"{folder}: has no {WEIGHTS_FILE} to take {name} from; give a model folder"
        )
    tensors: dict[str, Tensor] = {}
    for path in paths:
        try:
            with safe_open(path, framework="pt") as file:
                names = [n for n in file.keys() if n.startswith(f"{name}.")]  # noqa: SIM118
                tensors |= {n[len(name) + 1 :]: file.get_tensor(n) for n in names}
        except (OSError, SafetensorError) as error:
            raise WeightsError(
                f"{path}: cannot be read as safetensors ({error}); get the file again"
            ) from error
    check_names_and_shapes(module, tensors, f"{folder}: {name}")
    module.load_state_dict(tensors, strict=True)
