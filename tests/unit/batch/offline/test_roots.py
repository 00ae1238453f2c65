"""Which places the offline store may touch."""

from pathlib import Path

import pytest

from batch.offline.roots import Roots
from headrace.errors import InvalidArgument

S3 = Roots(["s3://bucket/team/"])


def test_places_below_a_root_are_taken(tmp_path: Path) -> None:
    roots = Roots([str(tmp_path)])
    assert roots.resolve(str(tmp_path)) == str(tmp_path)
    assert roots.resolve(f"file://{tmp_path}/a/b") == f"{tmp_path}/a/b"
    assert S3.resolve("s3://bucket/team/a/b.parquet") == "s3://bucket/team/a/b.parquet"
    assert S3.resolve("s3://bucket/team") == "s3://bucket/team"


def test_root_may_itself_lie_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert Roots([str(tmp_path / "link")]).resolve(str(tmp_path / "link" / "a")) == str(tmp_path / "real" / "a")


@pytest.mark.parametrize("name", ["../secret", "a/../../secret", "inner/file", "link", "\0", "rootling"])
def test_places_elsewhere_and_links_are_refused(tmp_path: Path, name: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "secret").touch()
    (tmp_path / "rootling").touch()
    (root / "inner").symlink_to(tmp_path)
    (root / "link").symlink_to(tmp_path / "secret")
    place = f"{root}ling" if name == "rootling" else f"{root}/{name}"
    with pytest.raises(InvalidArgument) as caught:
        Roots([str(root)]).resolve(place, "warehouse")
    assert (caught.value.reason, caught.value.field) == ("URI_OUTSIDE_ROOTS", "warehouse")


@pytest.mark.parametrize(
    "uri",
    [
        "s3://bucket/teams/a",
        "s3://bucket/team/../other",
        "s3://bucket/team/./a",
        "s3://bucket/team//a",
        "s3://bucket/team/%2e%2e/a",
        "s3://bucket/team/a?versionId=1",
        "s3://other/team/a",
        "s3:///team/a",
    ],
)
def test_object_addresses_elsewhere_are_refused(uri: str) -> None:
    with pytest.raises(InvalidArgument):
        S3.resolve(uri)


@pytest.mark.parametrize("uri", ["http://host/a", "gs://bucket/a", "file://host/a"])
def test_other_schemes_are_refused(tmp_path: Path, uri: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Roots([str(tmp_path)]).resolve(uri)
    assert caught.value.reason in {"URI_SCHEME", "URI_OUTSIDE_ROOTS"}
