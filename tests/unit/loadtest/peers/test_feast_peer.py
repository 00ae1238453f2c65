"""What is asked of Feast."""

import json
from pathlib import Path

from loadtest.peers.feast_peer import LOCK, lock_digest, read_message, ready, with_port


def test_precomputed_read_asks_for_full_names_as_its_fast_path_needs() -> None:
    assert json.loads(read_message([1, 2], precomputed=True)) == {
        "feature_service": "user_200_precomputed",
        "entities": {"user_id": [1, 2]},
        "full_feature_names": True,
    }
    assert json.loads(read_message([1], precomputed=False))["feature_service"] == "user_200"


def test_settings_get_the_port_of_this_run() -> None:
    assert with_port('connection_string: "127.0.0.1:7391"\n', 8000) == 'connection_string: "127.0.0.1:8000"\n'


def test_lock_pins_feast_with_hashes_and_names_no_registry() -> None:
    lock = LOCK.read_text()
    assert "feast==0.67.0" in lock
    assert "--hash=sha256:" in lock
    assert "index-url" not in lock and "://" not in lock


def test_environment_counts_only_with_the_digest_of_its_lock(tmp_path: Path) -> None:
    assert not ready(tmp_path)
    (tmp_path / "lock.sha256").write_text("of an older lock")
    assert not ready(tmp_path)
    (tmp_path / "lock.sha256").write_text(lock_digest())
    assert ready(tmp_path)
