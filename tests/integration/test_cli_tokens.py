"""A platform that asks for tokens, from `headrace up` to reads and writes."""

import hashlib
import json
from pathlib import Path

import pytest
import yaml

from tests.integration.platforms import headrace, running

pytestmark = pytest.mark.timeout(240)

ADMIN, READER, WATCHER = "admin-secret-0001", "reader-secret-0002", "watcher-secret-0003"
GRANTS = {
    ADMIN: ["FEATURE_READ", "FEATURE_WRITE", "REGISTRY_READ", "REGISTRY_WRITE"],
    READER: ["FEATURE_READ", "REGISTRY_READ"],
    WATCHER: ["REGISTRY_READ"],
}


def test_each_token_may_do_what_it_holds(tmp_path: Path) -> None:
    entries = [
        {"sha256": hashlib.sha256(token.encode()).hexdigest(), "principal": f"p{number}", "permissions": grants}
        for number, (token, grants) in enumerate(GRANTS.items())
    ]
    (tmp_path / "tokens.yaml").write_text(yaml.safe_dump({"tokens": entries}))
    (tmp_path / "watcher").write_text(WATCHER)
    assert headrace("init", "shop", cwd=tmp_path).returncode == 0
    shop = tmp_path / "shop"
    with running(shop, "--tokens", str(tmp_path / "tokens.yaml"), "--registry-token", str(tmp_path / "watcher")):
        nobody = headrace("list", "entity", cwd=shop)
        assert nobody.returncode == 1
        assert "UNAUTHENTICATED" in nobody.stderr or "token" in nobody.stderr
        refused = headrace("apply", "definitions.py", cwd=shop, HEADRACE_TOKEN=READER)
        assert refused.returncode == 1
        assert "PERMISSION_DENIED" in refused.stderr
        assert headrace("apply", "definitions.py", cwd=shop, HEADRACE_TOKEN=ADMIN).returncode == 0
        written = headrace("materialize", "shop.users.activity", cwd=shop, HEADRACE_TOKEN=ADMIN)
        assert written.returncode == 0, written.stderr
        entity = ("--entity", "user_id=1", "-o", "json")
        read = headrace("read", "shop.ranking.homepage", *entity, cwd=shop, HEADRACE_TOKEN=READER)
        assert read.returncode == 0, read.stderr
        assert json.loads(read.stdout)
        denied = headrace("read", "shop.ranking.homepage", *entity, cwd=shop, HEADRACE_TOKEN=WATCHER)
        assert denied.returncode == 1
        assert "PERMISSION_DENIED" in denied.stderr


def test_tokens_without_one_for_the_feature_server_are_refused(tmp_path: Path) -> None:
    result = headrace("up", "--tokens", str(tmp_path / "tokens.yaml"), cwd=tmp_path)
    assert result.returncode == 1
    assert "TOKENS_INCOMPLETE" in result.stderr
    assert "--registry-token" in result.stderr
