"""Settings of a cluster: what lets a client in is taken, anything else is refused by its line."""

from pathlib import Path

import pytest

from feature_server.pipeline.clusters import Cluster
from headrace.errors import InvalidArgument
from headrace.serving.kafka_access import read_access


def test_a_file_of_access_settings_reaches_every_client(tmp_path: Path) -> None:
    path = tmp_path / "access"
    path.write_text("# of the shop\nsecurity.protocol=SASL_SSL\nsasl.mechanism = SCRAM-SHA-512\n\nsasl.password=a=b\n")
    cluster = Cluster("broker:9092", access=read_access(path))
    assert cluster.client["sasl.password"] == "a=b"
    assert cluster.client["sasl.mechanism"] == "SCRAM-SHA-512"
    assert read_access(None) == {}


@pytest.mark.parametrize(
    "line", ["enable.auto.commit=true", "plugin.library.paths=x.so", "security.protocol", "=x", "sasl.login.class=x"]
)
def test_other_settings_are_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "access"
    path.write_text(f"security.protocol=SSL\n{line}\n")
    with pytest.raises(InvalidArgument, match="line 2"):
        read_access(path)
    with pytest.raises(InvalidArgument, match="cannot be read"):
        read_access(tmp_path / "none")
