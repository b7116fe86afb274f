import dataclasses

import pytest
import torch
from tests.published_varsr import make_varsr

from nsarm_cli.models.varsr.resolver import VarsrResolver
from nsarm_cli.runtime import window_generator


@pytest.fixture(scope="module")
def resolver() -> VarsrResolver:
    return VarsrResolver(make_varsr())


@pytest.mark.parametrize("last", [1.0, 1.5])
def test_windows_together_are_as_alone_whatever_the_last_weight_is(resolver, last):
    """With 1 the refiner is not guided, although the scales before it were."""
    weights = (*(3.0 for _ in range(resolver.scales - 1)), last)
    sampling = dataclasses.replace(resolver.sampling, guidance=weights, refiner_steps=3)
    lr = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(2)) * 2 - 1
    together = resolver.resolve_together(lr, [window_generator(0, i) for i in range(2)], sampling)
    for i, window in enumerate(lr):
        alone = resolver.resolve(window[None], [window_generator(0, i)], sampling)
        torch.testing.assert_close(together[i], alone[0], rtol=1e-4, atol=1e-4)
