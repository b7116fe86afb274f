import pytest

from nsarm_cli.models.interface import Sampling


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"temperature": -0.1}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"guidance_layer": 1}, "guidance_layer"),
    ],
)
def test_impossible_sampling_is_refused(values, fault):
    with pytest.raises(ValueError, match=fault):
        Sampling(**values)
