"""A training set through the DataLoader of real PyTorch, which is fetched into a folder of its own (about 3 GB)."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / ".venvs" / "torch"
TORCH = "torch==2.7.1"
MARK = FOLDER / "installed"
INSTALL_LIMIT_S = 900.0
RUN_LIMIT_S = 180.0
ROWS = 97


@pytest.fixture(scope="module")
def torch_folder() -> Path:
    """Where PyTorch lies, fetched the first time."""
    if not MARK.exists() or MARK.read_text() != TORCH:
        command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--upgrade"]
        command += ["--target", str(FOLDER), TORCH]
        subprocess.run(command, check=True, timeout=INSTALL_LIMIT_S)
        MARK.write_text(TORCH)
    return FOLDER


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_loader_gives_every_row_once_as_tensors_and_resumes(torch_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "result.parquet"
    table = pa.table({"row": list(range(ROWS)), "half": [row / 2 for row in range(ROWS)], "name": ["x"] * ROWS})
    pq.write_table(table, file, row_group_size=10)
    command = [sys.executable, "-m", "tests.integration.torch_reader", str(torch_folder), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_LIMIT_S, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert f"torch=={found['torch'].partition('+')[0]}" == TORCH
    assert found["is_dataset"]
    assert found["types"] == ["half torch.float64", "row torch.int64"]
    assert found["rows"] != sorted(found["rows"])
    assert sorted(found["rows"]) == list(range(ROWS))
    assert found["halves_agree"]
    assert found["is_repeatable"]
    assert found["resumed"] == found["whole"]
