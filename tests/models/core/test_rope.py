import pytest
import torch

from nsarm_cli.models.core.rope import rope_table, rotate


def rows(grids, height, width, position_grid=(8, 8), **kwargs) -> torch.Tensor:
    """Table of one grid, "2 height width pairs"."""
    table = rope_table(grids, 16, position_grid, **kwargs)
    return table[:, -height * width :].unflatten(1, (height, width))


def test_scales_follow_one_another():
    grids = [(1, 1), (2, 3), (8, 8)]
    table = rope_table(grids, 16, (8, 8))
    parts = [rope_table([grid], 16, (8, 8)) for grid in grids]
    assert torch.equal(table, torch.cat(parts, dim=1))


def test_the_same_place_has_the_same_position_at_each_scale():
    small, large = rows([(4, 2)], 4, 2), rows([(8, 8)], 8, 8)
    assert torch.equal(small, large[:, ::2, ::4])


def test_positions_are_rounded_half_to_even_unless_told_otherwise():
    # A grid of 16 on 8 positions: 0, 0.5, 1, 1.5, 2, 2.5 ... round to 0, 0, 1, 2, 2, 2 ...
    fine, full = rows([(16, 1)], 16, 1, (8, 1)), rows([(8, 1)], 8, 1, (8, 1))
    rounded = [0, 0, 1, 2, 2, 2, 3, 4, 4, 4]
    assert torch.equal(fine[:, :10], full[:, rounded])
    exact = rows([(16, 1)], 16, 1, (8, 1), settle=lambda position: position)
    assert torch.equal(exact[:, ::2], full)
    assert not torch.equal(exact[:, 1], full[:, 0])


def test_half_the_pairs_turn_with_the_row_and_half_with_the_column():
    table = rows([(8, 8)], 8, 8)
    by_row, by_column = table[..., :4], table[..., 4:]
    assert torch.equal(by_row[:, :, :1].expand_as(by_row), by_row)
    assert torch.equal(by_column[:, :1].expand_as(by_column), by_column)
    assert torch.equal(by_row.transpose(1, 2), by_column)


def test_turning_keeps_lengths_and_products_depend_on_distance_only():
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(2, 1, 1, 1, 16, generator=generator)
    table = rope_table([(8, 8)], 16, (8, 8))
    queries, keys = (rotate(x.expand(1, 1, 64, 16), table)[0, 0] for x in (query, key))
    torch.testing.assert_close(queries.norm(dim=-1), query.norm().expand(64))
    products = (queries @ keys.T).reshape(8, 8, 8, 8)
    torch.testing.assert_close(products[1:, 2:, 1:, 2:], products[:-1, :-2, :-1, :-2])


def test_the_type_of_the_tensor_is_kept():
    x = torch.ones(1, 1, 1, 16, dtype=torch.bfloat16)
    assert rotate(x, rope_table([(1, 1)], 16, (1, 1))).dtype == torch.bfloat16


def test_a_head_that_cannot_be_split_in_four_is_refused():
    with pytest.raises(ValueError, match="not a multiple of 4"):
        rope_table([(1, 1)], 18, (1, 1))
