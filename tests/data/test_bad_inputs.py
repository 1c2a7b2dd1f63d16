"""Damaged and hostile datasets are refused by name, at once, and nothing of them runs."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def outcomes():
    script = Path(__file__).with_name("bad_inputs.py")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def test_good_datasets_have_no_problems(outcomes):
    assert [item for item in outcomes if item["name"].startswith("00") and not item["good"]] == []


@pytest.mark.parametrize("kind", range(1, 21))
def test_every_variant_is_refused(outcomes, kind):
    variants = [item for item in outcomes if item["name"].startswith(f"{kind:02d} ")]
    assert len(variants) >= 7
    assert [item for item in variants if not item["good"]] == []


def test_names_are_unique(outcomes):
    assert max(Counter(item["name"] for item in outcomes).values()) == 1
