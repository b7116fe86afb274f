"""Running and keeping: values come from the journal, and processes add up to one."""

import json
from dataclasses import replace
from threading import Barrier, Thread, current_thread

import pytest
import torch

from nsarm_cli.cli.eval_model import EvaluatedModel
from nsarm_cli.errors import ConfigError, ImageError, NsarmError
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


def in_two_processes(work):
    """Call `work` with either process's ranks, in threads; give what each returned or raised."""
    barrier, parts, found = Barrier(2), {}, {}

    class Pair(Ranks):
        def gather(self, part):
            parts[self.rank] = part
            barrier.wait(60)
            given = [parts[rank] for rank in (0, 1) if parts[rank] is not None]
            barrier.wait(60)
            return given

    def one(rank):
        try:
            found[rank] = work(Pair(rank, 2))
        except NsarmError as error:
            found[rank] = error

    threads = [Thread(target=one, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_two_processes_share_the_work_and_both_get_all_of_it(pictures, tmp_path):
    calls = {}

    def work(ranks):
        measures, calls[ranks.rank] = counted(own_measures())
        return run(pictures, tmp_path / "two", measures, batch=2, ranks=ranks)

    results = in_two_processes(work)
    alone = run(pictures, tmp_path / "one", batch=2)
    assert results[0].rows == results[1].rows == alone.rows
    assert [n for name, n in calls[0] if name == "ssim_y"] == [2, 1]
    assert [n for name, n in calls[1] if name == "ssim_y"] == [2]


def test_only_the_first_process_prepares_a_models_folder_and_all_get_its_failure(
    pictures, tmp_path, monkeypatch
):
    called = []

    def watched(*arguments, **options):
        called.append(current_thread())
        prepare(*arguments, **options)

    monkeypatch.setattr("nsarm_cli.evaluation.methods.prepare", watched)

    def of_seed(seed, *, overwrite=False):
        called.clear()
        model = EvaluatedModel("m", None, seed, {"model": "m", "seed": seed})
        return in_two_processes(
            lambda ranks: model.methods(pictures, NATIVE, tmp_path, ranks, overwrite=overwrite)
        )

    found = of_seed(0)
    assert len(called) == 1
    assert [found[rank][0].name for rank in (0, 1)] == ["m", "m"]
    (found[0][0].folder / "a.png").touch()
    assert all("made with another seed" in str(error) for error in of_seed(1).values())
    of_seed(1, overwrite=True)
    assert len(called) == 1
    assert [path.name for path in found[0][0].folder.iterdir()] == ["settings.json"]


@pytest.mark.parametrize("content", [b"", b'{"seed": 0', b"[]", b"\xff\xfe"])
def test_damaged_settings_count_as_others(content, tmp_path):
    (tmp_path / "settings.json").write_bytes(content)
    (tmp_path / "a.png").touch()
    with pytest.raises(ConfigError, match="made with another model, seed; choose"):
        prepare(tmp_path, {"seed": 0, "model": "m"}, overwrite=False)
    prepare(tmp_path, {"seed": 0, "model": "m"}, overwrite=True)
    assert json.loads((tmp_path / "settings.json").read_text()) == {"seed": 0, "model": "m"}
    assert not (tmp_path / "a.png").exists()


def test_a_setting_that_is_gone_is_another(tmp_path):
    prepare(tmp_path, {"seed": 0, "quantize": "int8"}, overwrite=False)
    (tmp_path / "a.png").touch()
    with pytest.raises(ConfigError, match="made with another quantize; choose"):
        prepare(tmp_path, {"seed": 0}, overwrite=False)


def test_what_the_disk_refuses_is_one_sentence(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ImageError, match="cannot be written"):
        prepare(tmp_path / "file" / "m", {"seed": 0}, overwrite=False)
    (tmp_path / "m" / "a.png").mkdir(parents=True)  # a folder cannot be unlinked
    with pytest.raises(ImageError, match=r"a\.png: cannot be written"):
        prepare(tmp_path / "m", {"seed": 0}, overwrite=True)


def test_without_torchrun_there_is_one_process(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with ranks_of_environment() as ranks:
        assert ranks == Ranks(0, 1)
        assert ranks.gather("x") == ["x"]
        assert all(ranks.is_mine(i) for i in range(3))
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert local_device("cuda") == "cuda:3"
    assert local_device("cpu") == "cpu"
    assert local_device("cuda:1") == "cuda:1"


def test_each_process_has_a_gpu_of_its_own_where_no_device_was_asked_for(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "3")
    for has_gpus, device in ((True, "cuda:3"), (False, "auto")):
        monkeypatch.setattr("torch.cuda.is_available", lambda has_gpus=has_gpus: has_gpus)
        assert local_device("auto") == device
    monkeypatch.delenv("LOCAL_RANK")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert local_device("auto") == "auto"


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
