"""Which picture comes when depends on the seed and the step alone; shapes have buckets."""

import numpy as np
import pytest
from PIL import Image

from nsarm_cli.training.order import ShuffledOrder, buckets
from nsarm_cli.training.photos import PhotoStore

RATIOS = (1.0, 0.75, 1.333)


@pytest.fixture
def mixed(tmp_path):
    """Nine pictures: four square, three wide, two tall; the name begins with the shape."""
    for shape, (width, height), count in (
        ("square", (40, 40), 4),
        ("wide", (40, 30), 3),
        ("tall", (30, 40), 2),
    ):
        for i in range(count):
            Image.new("RGB", (width, height), (i, 0, 0)).save(tmp_path / f"{shape}{i}.png")
    return PhotoStore([tmp_path])


def names(order, steps, batch):
    return [[order.picture(s, i, 0)[0].name for i in range(batch)] for s in range(steps)]


def test_a_step_has_one_shape_and_every_shape_has_its_turns(mixed):
    order = ShuffledOrder(mixed, 2, 200, 0, RATIOS)
    shapes = {1.0: "square", 0.75: "wide", 1.333: "tall"}
    counts = dict.fromkeys(shapes, 0)
    for step, batch in enumerate(names(order, 200, 2)):
        assert all(name.startswith(shapes[order.ratio(step)]) for name in batch)
        counts[order.ratio(step)] += 1
    for ratio, share in ((1.0, 4 / 9), (0.75, 3 / 9), (1.333, 2 / 9)):
        assert counts[ratio] / 200 == pytest.approx(share, abs=0.1)


def test_every_bucket_is_shown_in_epochs(mixed):
    order = ShuffledOrder(mixed, 2, 60, 0, RATIOS)
    wide = [n for batch in names(order, 60, 2) for n in batch if n.startswith("wide")]
    assert len(wide) >= 12
    for start in range(0, len(wide) - 2, 3):
        assert len(set(wide[start : start + 3])) == 3


def test_the_same_seed_gives_the_same_order_and_another_another(mixed):
    def made(seed, ratios):
        return names(ShuffledOrder(mixed, 3, 6, seed, ratios), 6, 3)

    for ratios in ((1.0,), RATIOS):
        assert made(1, ratios) == made(1, ratios)
        assert made(1, ratios) != made(2, ratios)


def test_a_shape_goes_to_the_nearest_of_the_templates_asked(mixed):
    found = buckets(mixed.records, (1.0, 0.5))
    assert {ratio: len(indices) for ratio, indices in found.items()} == {1.0: 9}
    found = buckets(mixed.records, RATIOS)
    assert {ratio: len(indices) for ratio, indices in found.items()} == {1.0: 4, 0.75: 3, 1.333: 2}


def test_a_picture_without_a_header_is_in_the_first_bucket(mixed, tmp_path):
    (tmp_path / "wide0.png").write_bytes(b"no picture")
    found = buckets(mixed.records, RATIOS)
    assert sorted(np.concatenate(list(found.values())).tolist()) == list(range(9))
    assert len(found[1.0]) == 5
