"""Files appear whole or not at all, and hashes see every change."""

from __future__ import annotations

import errno
import os
import stat
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from expunge.errors import ExpungeError
from expunge.files import check_writable, hash_file, hash_tensors, read_tensors, whole, write_json, write_tensors

DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.uint8]
Shapes = st.lists(st.integers(1, 4), max_size=3).map(tuple)


def tensor(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Random bytes as a tensor."""
    width = torch.empty((), dtype=dtype).element_size()
    generator = torch.Generator().manual_seed(seed)
    data = torch.randint(0, 256, (max(1, torch.Size(shape).numel()) * width,), generator=generator, dtype=torch.uint8)
    return data.view(dtype).reshape(shape)


Tensors = st.builds(tensor, Shapes, st.sampled_from(DTYPES), st.integers(0, 99))
Named = st.dictionaries(st.text("abc.", min_size=1, max_size=5), Tensors, min_size=1, max_size=3)


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_whole_replaces_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with whole(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert listing(tmp_path) == ["file"]


def test_whole_makes_missing_folders(tmp_path: Path) -> None:
    with whole(tmp_path / "a" / "b" / "file") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "a" / "b" / "file").read_text() == "new"


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, ExpungeError])
@pytest.mark.parametrize("old", [None, "old"])
def test_whole_leaves_the_old_file_if_writing_fails(
    tmp_path: Path, failure: type[BaseException], old: str | None
) -> None:
    """Whatever the failure: the old bytes, or no file where there was none, and no temporary."""
    path = tmp_path / "file"
    if old:
        path.write_text(old)
    with pytest.raises(failure), whole(path) as temporary:
        temporary.write_text("half")
        raise failure
    assert listing(tmp_path) == (["file"] if old else [])
    assert not old or path.read_text() == old


def test_an_error_of_the_disk_is_one_line(tmp_path: Path) -> None:
    full = pytest.raises(ExpungeError, match=r"cannot write .*file: No space left on device; ")
    with full as told, whole(tmp_path / "file"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert "\n" not in str(told.value)
    assert listing(tmp_path) == []


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077, 0o000])
def test_permissions_are_those_of_any_new_file(tmp_path: Path, umask: int) -> None:
    """Also for safetensors, which by itself writes private files."""
    before = os.umask(umask)
    try:
        write_json(tmp_path / "json", {})
        write_tensors(tmp_path / "tensors", {"a": torch.zeros(2)}, {})
    finally:
        os.umask(before)
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("json", "tensors")}
    assert modes == {0o666 & ~umask}


def test_check_writable_agrees_with_whole_and_touches_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "below", tmp_path / "file" / "a" / "b", tmp_path / ("a" * 300)):
        with pytest.raises(ExpungeError, match="cannot write"):
            check_writable(path)
        with pytest.raises(ExpungeError, match="cannot write"), whole(path):
            pass
    check_writable(tmp_path / "new" / "folder" / "file")
    check_writable(tmp_path / "file")
    assert listing(tmp_path) == ["file"]


@given(tensors=Named, metadata=st.dictionaries(st.text("ab", min_size=1), st.text("cd", max_size=300), max_size=2))
def test_tensors_come_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, torch.Tensor], metadata: dict[str, str]
) -> None:
    path = tmp_path_factory.mktemp("tensors") / "file"
    write_tensors(path, tensors, metadata)
    found, about = read_tensors(path)
    assert hash_tensors(found) == hash_tensors(tensors)
    assert {k: v for k, v in about.items() if k != "sha256"} == metadata


@pytest.mark.parametrize("metadata", [{"a": "1", "b": "ü"}, {'a"\n': "\\ \u2028 \x01", "b": "2", "": "3"}])
def test_equal_contents_give_equal_bytes(tmp_path: Path, metadata: dict[str, str]) -> None:
    """The library writes the metadata in an order of its own, another one each time."""
    path, tensors = tmp_path / "x.safetensors", {"w": torch.ones(3)}
    written = set()
    for order in (1, -1) * 8:
        write_tensors(path, tensors, dict([*metadata.items()][::order]))
        written.add(path.read_bytes())
    assert len(written) == 1
    assert read_tensors(path)[1].items() >= metadata.items()


def test_no_header_is_mistaken_for_a_pickle(tmp_path: Path) -> None:
    """A safetensors file starts with its header's length, whose first byte may be a pickle's."""
    path, starts = tmp_path / "file", set()
    for length in range(0, 256, 8):
        write_tensors(path, {"a": torch.zeros(1)}, {"pad": "x" * length})
        assert read_tensors(path)[1]["pad"] == "x" * length
        starts.add(path.read_bytes()[0])
    assert 0x80 in starts


@given(tensors=Named, data=st.data())
def test_the_hash_sees_any_flipped_bit(tensors: dict[str, torch.Tensor], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(tensors)))
    before = tensors[name]
    flat = before.clone().reshape(-1).view(torch.uint8)
    flat[data.draw(st.integers(0, len(flat) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    after = tensors | {name: flat.view(before.dtype).reshape(before.shape)}
    assert hash_tensors(after) != hash_tensors(tensors)


@given(tensor=Tensors)
def test_the_hash_sees_name_dtype_and_shape(tensor: torch.Tensor) -> None:
    """The same bytes under another name, dtype or shape are other tensors."""
    others = [{"b": tensor}, {"a": tensor[None]}, {"a": tensor, "b": tensor}, {}]
    others += [{"a": tensor.reshape(-1).view(d)} for d in (torch.uint8, torch.int8) if d != tensor.dtype]
    assert len({hash_tensors(t) for t in ({"a": tensor}, *others)}) == 1 + len(others)


@given(tensors=Named)
def test_the_hash_sees_nothing_else(tensors: dict[str, torch.Tensor]) -> None:
    """Neither the order of the names nor the layout in memory counts."""
    turned = {name: tensors[name].T.clone().T if tensors[name].dim() == 2 else tensors[name] for name in tensors}
    assert hash_tensors(dict(reversed(turned.items()))) == hash_tensors(tensors)


def test_tensors_without_elements_have_hashes() -> None:
    assert hash_tensors({"a": torch.zeros(0, 3)}) != hash_tensors({"a": torch.zeros(3, 0)})


def test_the_hash_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    """The published SHA-256 test vector."""
    (tmp_path / "file").write_bytes(b"abc")
    assert hash_file(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_two_threads_write_one_file_whole(tmp_path: Path) -> None:
    """Each time: one may remove an empty folder just when the other needs it."""
    from concurrent.futures import ThreadPoolExecutor
    from threading import Barrier

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(2) as threads:
            for _ in range(300):
                together = Barrier(2, timeout=30)

                def write(text: str, together: Barrier = together) -> None:
                    with whole(tmp_path / "file") as temporary:
                        together.wait()
                        temporary.write_text(text * 1000)
                        together.wait()

                [*threads.map(write, "ab")]
                assert (tmp_path / "file").read_text() in ("a" * 1000, "b" * 1000)
    finally:
        sys.setswitchinterval(interval)
    assert listing(tmp_path) == ["file"]
