"""Checked files: whole after a crash, refused when damaged."""

from pathlib import Path

import pytest

from feature_server.storage.files import read_file, write_file
from headrace.errors import DataLoss, Unavailable


def test_file_is_read_back_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert read_file(path) is None
    for data in (b"", b"one", b"another"):
        write_file(path, data)
        assert read_file(path) == data
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file"]


def test_leftover_of_a_crash_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "file.tmp").write_bytes(b"half")
    write_file(tmp_path / "file", b"whole")
    assert read_file(tmp_path / "file") == b"whole"


def test_every_flipped_bit_and_every_cut_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_file(path, b"twelve bytes")
    whole = path.read_bytes()
    damaged = [flipped(whole, at, bit) for at in range(len(whole)) for bit in range(8)]
    damaged += [whole[:length] for length in range(len(whole))] + [whole + b"\0"]
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(DataLoss):
            read_file(path)


def flipped(data: bytes, at: int, bit: int) -> bytes:
    return data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :]


def test_folder_that_is_gone_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        write_file(tmp_path / "none" / "file", b"data")
    (tmp_path / "folder").mkdir()
    with pytest.raises(Unavailable):
        read_file(tmp_path / "folder")
