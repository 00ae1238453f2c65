"""The starter project before anything runs."""

from pathlib import Path

import pytest

from control_plane.cli.starter import write_starter
from headrace.definitions import load
from headrace.errors import FailedPrecondition


def test_starter_loads_as_definitions_and_names_only_files_that_exist(tmp_path: Path) -> None:
    written = list(write_starter(tmp_path / "new" / "project"))
    assert all(path.is_file() for path in written)
    definitions = load(tmp_path / "new" / "project" / "definitions.py")
    (source,) = definitions.sources
    assert (tmp_path / "new" / "project" / source.uri).is_file()
    assert [service.name for service in definitions.feature_services] == ["shop.ranking.homepage"]


def test_folder_with_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FailedPrecondition, match="not an empty folder"):
        list(write_starter(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(FailedPrecondition):
        list(write_starter(tmp_path / "taken"))
