"""Rotary tables, against the authors' code."""

import pytest
import torch

from nsarm_cli.models.core.rope import rope_table
from nsarm_cli.models.nsarm.config import NSARM_TINY


@pytest.mark.parametrize("head_width", [64, 128])
def test_the_table_is_the_recorded_one(golden, head_width):
    recorded, schedule = golden("rope"), NSARM_TINY.schedule
    table = rope_table(schedule.tokens, head_width, schedule.position_grid)
    name = f"rope{head_width}"
    assert recorded.difference(f"{name}.first521", table[:, :128]) < 1e-6
    # The record has rows for a multiple of 128 tokens, the last of them zeros.
    padded = torch.nn.functional.pad(table, (0, 0, 0, 10624 - schedule.total))
    assert recorded.difference(f"{name}.every37", padded[:, ::37]) < 1e-6
    mean, std, rows = recorded[f"{name}.stat"].tolist()
    assert rows == padded.shape[1]
    assert float(padded.double().mean()) == pytest.approx(mean, abs=1e-7)
    assert float(padded.double().std()) == pytest.approx(std, abs=1e-7)
