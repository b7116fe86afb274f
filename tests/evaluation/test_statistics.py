"""Statistics and failure counts, against short calculations of their own."""

import math
import statistics

import numpy as np
import pytest

from nsarm_cli.errors import ConfigError
from nsarm_cli.evaluation.robustness import SCORES, choose_score, greatest_gains, robustness
from nsarm_cli.evaluation.statistics import paired_difference, summarise

PAPER = ("clipiqa", "musiq", "maniqa", "topiq")


def rows(seed, level):
    rng = np.random.default_rng(seed)
    return {
        f"p{i}": {
            "clipiqa": level * rng.uniform(0.5, 1),
            "musiq": 100 * level * rng.uniform(0.5, 1),
            "maniqa": level * rng.uniform(0.5, 1),
            "topiq": level * rng.uniform(0.5, 1),
        }
        for i in range(20)
    }


def test_a_summary_is_that_of_the_standard_library():
    values = [3.0, 4.5, None, 1.25, 9.0]
    known = [v for v in values if v is not None]
    found = summarise(values)
    assert found.n == 4
    assert found.mean == pytest.approx(statistics.fmean(known))
    assert found.variance == pytest.approx(statistics.pvariance(known))
    assert found.error == pytest.approx(statistics.stdev(known) / math.sqrt(4))
    assert (found.least, found.greatest) == (1.25, 9.0)


def test_one_picture_has_no_error_and_none_no_summary():
    assert summarise([2.0]).error is None
    assert summarise([2.0]).variance == 0
    assert summarise([None]) is None


def test_a_paired_difference_sees_through_the_spread_of_pictures():
    rng = np.random.default_rng(0)
    pictures = rng.normal(25, 5, 60)
    ours = [*(pictures + 0.5 + rng.normal(0, 0.3, 60)), None]
    found = paired_difference(ours, [*pictures, 1.0], is_higher_better=True)
    assert found.n == 60
    assert found.low < found.mean < found.high
    assert found.verdict == "better"
    # The normal approximation of the same interval.
    d = np.array(ours[:60], dtype=float) - pictures
    reach = 1.96 * d.std() / math.sqrt(60)
    assert found.low == pytest.approx(d.mean() - reach, abs=0.15 * reach)
    assert found.high == pytest.approx(d.mean() + reach, abs=0.15 * reach)
    worse = paired_difference(ours, [*pictures, 1.0], is_higher_better=False)
    assert worse.verdict == "worse"
    assert worse.better == pytest.approx(1 - found.better)


def test_equal_methods_and_single_pictures_are_not_told_apart():
    rng = np.random.default_rng(1)
    a, b = rng.normal(0, 1, 40), rng.normal(0, 1, 40)
    assert paired_difference(a, b - b.mean() + a.mean(), is_higher_better=True).verdict == "unclear"
    assert paired_difference([1.0], [2.0], is_higher_better=True) is None


def test_failures_are_counted_against_the_mean_over_all_methods():
    """Eq. 7 of the paper, worked out again from the values alone."""
    data = {"strong": rows(0, 1.0), "weak": rows(1, 0.8)}
    found = robustness(data, SCORES["paper"])
    scores = {
        m: [(r["clipiqa"] + r["musiq"] / 100 + r["maniqa"] + r["topiq"]) / 4 for r in p.values()]
        for m, p in data.items()
    }
    overall = statistics.fmean(scores["strong"] + scores["weak"])
    assert found.global_mean == pytest.approx(overall)
    for method, values in scores.items():
        spread = found.methods[method]
        assert spread.failures == {
            "deficient": sum(v < overall for v in values),
            "poor": sum(v < 0.9 * overall for v in values),
            "collapse": sum(v < 0.8 * overall for v in values),
        }
        assert list(spread.curve) == pytest.approx(sorted(values, reverse=True))
        assert spread.variance == pytest.approx(statistics.pvariance(values))
        by_name = dict(zip(data[method], values, strict=True))
        assert list(spread.worst) == sorted(by_name, key=by_name.get)[:5]
    assert found.methods["weak"].failures["poor"] > found.methods["strong"].failures["poor"]


def test_a_picture_without_a_score_is_left_out_of_every_method_and_named():
    data = {"a": rows(0, 1.0), "b": rows(1, 1.0)}
    data["a"]["p3"]["topiq"] = None
    found = robustness(data, SCORES["paper"])
    assert found.missing == ("p3",)
    assert len(found.methods["b"].curve) == 19
    assert robustness({"a": {"p": {}}}, SCORES["paper"]) is None


def test_gains_are_leads_over_the_best_other_method():
    data = {"us": {}, "x": {}, "y": {}}
    lpips = {"one": (0.1, 0.3, 0.5), "two": (0.2, 0.9, 0.25), "three": (0.4, 0.3, 0.9)}
    for name, values in lpips.items():
        for method, value in zip(data, values, strict=True):
            data[method][name] = {"lpips": value}
    found = greatest_gains(data, SCORES["lpips"], "us")
    assert [name for name, _ in found] == ["one", "two"]
    assert [lead for _, lead in found] == pytest.approx([0.2, 0.05])
    assert greatest_gains({"us": data["us"]}, SCORES["lpips"], "us") == []


def test_the_score_is_the_papers_where_its_measures_are_and_else_says_that_it_is_not():
    assert choose_score(None, [*PAPER, "niqe"], has_references=True).is_paper
    stand_in = choose_score(None, ["psnr_y", "lpips", "niqe"], has_references=True)
    assert stand_in.name == "lpips"
    assert stand_in.title == "1 - LPIPS, not the paper's score"
    assert choose_score(None, ["lpips", "niqe"], has_references=False).name == "niqe"
    assert SCORES["niqe"].of({"niqe": 4.0}) == 0.25
    with pytest.raises(ConfigError, match="but clipiqa, musiq, maniqa, topiq cannot be computed"):
        choose_score("paper", ["lpips"], has_references=True)
    assert choose_score(None, ["psnr_y", "ssim_y"], has_references=True) is None
    assert choose_score(None, ["lpips"], has_references=False) is None
    with pytest.raises(ConfigError, match="'vmaf' is unknown"):
        choose_score("vmaf", ["lpips"], has_references=True)
