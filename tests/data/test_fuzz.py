"""Whatever bytes a dataset has, it opens or is refused by an error of ours."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("fuzz.py")
FORMATS = ("lerobot", "lerobot_v2", "robomimic", "aloha", "zarr", "zarr_zip", "mcap", "sqlite", "rlds")


def fuzz(kind, count, seed, folder):
    command = [sys.executable, str(SCRIPT), kind, str(count), str(seed), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{kind} ended with {done.returncode}: {done.stderr[-2000:]}"
    result = json.loads(done.stdout)
    assert result["failures"] == []
    assert result["refused"] > result["runs"] // 10  # the damage reaches the reader
    return result


@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_bytes(kind, tmp_path):
    fuzz(kind, 40, 1, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("kind", FORMATS)
def test_many_damaged_bytes(kind, part, tmp_path, record_property):
    result = fuzz(kind, 5_000, 2 + part, tmp_path)
    for name in ("runs", "refused", "slowest_s"):
        record_property(name, result[name])
