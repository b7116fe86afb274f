"""Running and keeping: values come from the journal, and processes add up to one."""

import json
from dataclasses import replace
from threading import Barrier, Thread

import pytest
import torch

from nsarm_cli.errors import ConfigError, ImageError
from nsarm_cli.evaluation import runner
from nsarm_cli.evaluation.journal import Journal
from nsarm_cli.evaluation.measures import own_measures
from nsarm_cli.evaluation.methods import BicubicMethod, FolderMethod, ModelMethod, prepare
from nsarm_cli.evaluation.pictures import find_set
from nsarm_cli.evaluation.protocol import Protocol
from nsarm_cli.evaluation.ranks import Ranks, local_device, ranks_of_environment
from nsarm_cli.imaging.files import read_image

NATIVE = Protocol.NATIVE


@pytest.fixture
def pictures(make_set):
    return find_set(make_set(("a", "b", "c", "d", "e")))


def counted(measures):
    """The measures, and a list that grows with each computation."""
    calls = []

    def counting(entry):
        def compute(batch):
            calls.append((entry.name, len(batch.sr)))
            return entry.compute(batch)

        return replace(entry, compute=compute)

    return [counting(entry) for entry in measures], calls


def run(pictures, folder, measures=None, **settings):
    with Journal(folder, settings.get("ranks", Ranks()).rank) as journal:
        return runner.evaluate(
            pictures, [BicubicMethod()], measures or own_measures(), NATIVE, journal, **settings
        )


def test_a_second_run_computes_nothing_and_gives_the_same(pictures, tmp_path):
    first = run(pictures, tmp_path)
    measures, calls = counted(own_measures())
    assert run(pictures, tmp_path, measures).rows == first.rows
    assert calls == []


def test_only_what_depends_on_a_changed_picture_is_measured_again(pictures, tmp_path):
    run(pictures, tmp_path)
    item = pictures.items[1]
    item.gt.write_bytes(pictures.items[2].gt.read_bytes())
    measures, calls = counted(own_measures())
    run(pictures, tmp_path, measures)
    assert [name for name, _ in calls] == ["psnr_y", "ssim_y"]


def test_another_version_of_a_measure_is_another_value(pictures, tmp_path):
    run(pictures, tmp_path)
    newer = [replace(m, version="2") if m.name == "ssim_y" else m for m in own_measures()]
    measures, calls = counted(newer)
    run(pictures, tmp_path, measures)
    assert {name for name, _ in calls} == {"ssim_y"}


def test_a_line_cut_short_loses_one_value_only(pictures, tmp_path):
    first = run(pictures, tmp_path)
    path = tmp_path / "measures-0.jsonl"
    path.write_text(path.read_text()[:-20])
    measures, calls = counted(own_measures())
    assert run(pictures, tmp_path, measures).rows == first.rows
    assert len(calls) == 1
    assert all(json.loads(line) for line in path.read_text().splitlines()[-1:])


def test_the_batch_does_not_change_the_values(pictures, tmp_path):
    alone = run(pictures, tmp_path / "1")
    measures, calls = counted(own_measures())
    together = run(pictures, tmp_path / "2", measures, batch=2)
    assert ("psnr_y", 2) in calls
    assert ("psnr_y", 1) in calls
    for name, row in alone.rows["bicubic"].items():
        assert row.pop("niqe") is together.rows["bicubic"][name].pop("niqe") is None  # too small
        assert together.rows["bicubic"][name] == pytest.approx(row, rel=1e-9)


def test_two_processes_share_the_work_and_both_get_all_of_it(pictures, tmp_path):
    barrier, parts = Barrier(2), {}

    class Pair(Ranks):
        def gather(self, part):
            parts[self.rank] = part
            barrier.wait(60)
            return [parts[0], parts[1]]

    results, calls = {}, {}

    def work(rank):
        measures, calls[rank] = counted(own_measures())
        results[rank] = run(pictures, tmp_path / "two", measures, batch=2, ranks=Pair(rank, 2))

    threads = [Thread(target=work, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone = run(pictures, tmp_path / "one", batch=2)
    assert results[0].rows == results[1].rows == alone.rows
    assert [n for name, n in calls[0] if name == "ssim_y"] == [2, 1]
    assert [n for name, n in calls[1] if name == "ssim_y"] == [2]


def test_without_torchrun_there_is_one_process(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with ranks_of_environment() as ranks:
        assert ranks == Ranks(0, 1)
        assert ranks.gather("x") == ["x"]
        assert all(ranks.is_mine(i) for i in range(3))
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert local_device("cuda") == "cuda:3"
    assert local_device("cpu") == "cpu"


def test_a_models_outputs_are_kept_and_not_made_again(pictures, tmp_path):
    made = []

    def enlarge(image, item):
        made.append(item.name)
        return image.resize((4 * image.width, 4 * image.height))

    method = ModelMethod("m", "a model", tmp_path / "m", enlarge)
    prepare(tmp_path / "m", {"seed": 0}, overwrite=False)
    with Journal(tmp_path / "cache") as journal:
        for _ in range(2):
            runner.evaluate(pictures, [method], own_measures(), NATIVE, journal)
    assert made == ["a", "b", "c", "d", "e"]
    prepare(tmp_path / "m", {"seed": 0}, overwrite=False)
    with pytest.raises(ConfigError, match="were made with another seed"):
        prepare(tmp_path / "m", {"seed": 1}, overwrite=False)
    prepare(tmp_path / "m", {"seed": 1}, overwrite=True)
    assert [path.name for path in (tmp_path / "m").iterdir()] == ["settings.json"]


@pytest.fixture
def model(tmp_path):
    """A model that says which pictures it has enlarged, and its folder."""
    made = []

    def enlarge(image, item):
        made.append(item.name)
        return image.resize((4 * image.width, 4 * image.height))

    prepare(tmp_path / "m", {"seed": 0}, overwrite=False)
    return ModelMethod("m", "a model", tmp_path / "m", enlarge), made


def test_an_output_is_taken_only_for_the_input_that_it_was_made_from(pictures, model):
    method, made = model
    item, other = pictures.items[:2]
    first, second = read_image(item.lr), read_image(other.lr)
    method.output(item, first)
    changed = method.output(item, second)
    assert made == ["a", "a"]
    assert changed == second.resize(changed.size)
    assert method.output(item, second) == changed
    assert made == ["a", "a"]
    larger = second.resize((2 * second.width, 2 * second.height))  # another protocol's input
    assert method.output(item, larger).width == 8 * second.width
    assert made == ["a", "a", "a"]


def test_an_output_without_a_whole_record_is_made_again(pictures, model):
    method, made = model
    item = pictures.items[0]
    given = read_image(item.lr)
    method.output(item, given)
    record = method.folder / "a.png.json"
    for content in (None, b"", b'{"size": [24', b"[]", b"\xff"):
        record.unlink()
        if content is not None:
            record.write_bytes(content)
        method.output(item, given)
    assert made == ["a"] * 6
    (method.folder / "a.png").unlink()
    method.output(item, given)
    assert made == ["a"] * 7


def test_an_output_that_could_not_be_written_leaves_no_record(pictures, model, monkeypatch):
    method, made = model
    item, other = pictures.items[:2]
    method.output(item, read_image(item.lr))

    def refuse(*_, **__):
        raise ImageError("a.png: the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("nsarm_cli.evaluation.kept.write_image", refuse)
        with pytest.raises(ImageError, match="the disk is full"):
            method.output(item, read_image(other.lr))
    assert list(method.folder.glob("*.json")) == [method.folder / "settings.json"]
    method.output(item, read_image(item.lr))
    assert made == ["a"] * 3


def test_a_methods_folder_may_have_one_folder_per_set(pictures, make_outputs, tmp_path):
    outputs = make_outputs("m", pictures.items[0].gt.parents[1], 3)
    (tmp_path / "all").mkdir()
    outputs.rename(tmp_path / "all" / "pictures")
    method = FolderMethod.find("m", tmp_path / "all", pictures)
    with Journal(tmp_path / "cache") as journal:
        found = runner.evaluate(pictures, [method], own_measures(), NATIVE, journal)
    psnr = [row["psnr_y"] for row in found.rows["m"].values()]
    assert psnr == sorted(psnr, reverse=True)  # the noise grows from picture to picture
    assert torch.tensor(psnr).min() > 20
