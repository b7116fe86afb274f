"""Tensors are read from where they lie, in pieces, across the ends of files."""

import io

import pytest
import torch

from nsarm_cli.errors import WeightsError
from nsarm_cli.weights.stored import JoinedFile, StoredTensor


@pytest.fixture
def parts(tmp_path):
    """A file of 0, 1, ... 99 in three parts of odd sizes, one of them empty."""
    whole = bytes(range(100))
    paths = []
    for i, (begin, end) in enumerate([(0, 7), (7, 7), (7, 60), (60, 100)]):
        paths.append(tmp_path / str(i))
        paths[-1].write_bytes(whole[begin:end])
    return paths


def test_parts_read_as_the_file_that_they_make(parts):
    whole = io.BytesIO(bytes(range(100)))
    with JoinedFile(parts) as file:
        assert file.size == 100
        for offset, whence in ((0, 0), (5, 0), (-3, 1), (-1, 2), (59, 0), (100, 0), (120, 0)):
            assert file.seek(offset, whence) == whole.seek(offset, whence)
            for count in (1, 10, 70):
                assert file.read(count) == whole.read(count)
                assert file.tell() == whole.tell()
        file.seek(0)
        assert file.read() == whole.getvalue()
        with pytest.raises(ValueError, match="before the beginning"):
            file.seek(-1)


def test_a_missing_part_leaves_no_file_open(parts, tmp_path):
    with pytest.raises(FileNotFoundError):
        JoinedFile([*parts, tmp_path / "absent"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int64])
@pytest.mark.parametrize("limit", [1, 8, 20, 1000])
def test_the_pieces_of_a_tensor_are_its_elements_in_order(tmp_path, dtype, limit):
    tensor = (torch.arange(15) * 3 - 20).to(dtype).reshape(3, 5)
    raw = b"abc" + tensor.view(torch.uint8).numpy().tobytes()
    paths = [tmp_path / "a", tmp_path / "b"]
    paths[0].write_bytes(raw[:21])
    paths[1].write_bytes(raw[21:])
    with JoinedFile(paths) as file:
        stored = StoredTensor.contiguous(file, 3, dtype, (3, 5))
        pieces = list(stored.pieces(limit))
        assert all(piece.nbytes <= max(limit, dtype.itemsize) for piece in pieces)
        assert torch.equal(torch.cat(pieces), tensor.flatten())
        assert torch.equal(stored.read(), tensor)
        assert torch.equal(stored.reshape((5, 3)).read(), tensor.reshape(5, 3))
        with pytest.raises(ValueError, match="cannot be reshaped"):
            stored.reshape((4, 4))


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1, 1)])
def test_tensors_of_no_and_of_one_element_are_read(tmp_path, shape):
    (tmp_path / "a").write_bytes(b"\0\0\x80\x3f")
    with JoinedFile([tmp_path / "a"]) as file:
        read = StoredTensor.contiguous(file, 0, torch.float32, shape).read()
    assert torch.equal(read, torch.ones(shape))


def test_a_transposed_tensor_is_read_in_its_own_order(tmp_path):
    tensor = torch.arange(12.0).reshape(3, 4)
    (tmp_path / "a").write_bytes(tensor.numpy().tobytes())
    with JoinedFile([tmp_path / "a"]) as file:
        stored = StoredTensor(file, 0, torch.float32, (4, 3), (4, 3), (1, 4))
        assert torch.equal(stored.read(), tensor.T)
        assert torch.equal(stored.reshape((12,)).read(), tensor.T.flatten())


def test_a_file_that_ends_too_early_is_named(tmp_path):
    (tmp_path / "a").write_bytes(bytes(10))
    with JoinedFile([tmp_path / "a"]) as file:
        stored = StoredTensor.contiguous(file, 0, torch.float32, (3,))
        with pytest.raises(WeightsError, match="a: ends before all tensors are read"):
            stored.read()
