"""What an import costs: which libraries a fresh process has loaded (times are in benchmarks/startup.py)."""

import subprocess
import sys

import pytest

HEAVY = {
    *("torch", "torchvision", "diffusers", "transformers", "lerobot", "datasets", "hydra", "omegaconf", "mujoco"),
    *("gymnasium", "robosuite", "metaworld", "cv2", "av", "zarr", "pyarrow", "ray", "numba", "scipy", "pandas"),
}


def loaded(code: str) -> set[str]:
    """Return the top-level modules that a fresh process holds after `code`."""
    program = f"{code}\nimport sys\nsys.stderr.write('|' + ' '.join({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stderr.rpartition("|")[2].split())


@pytest.mark.parametrize(
    "code",
    [
        "import robolearn",
        "import robolearn.cli",
        "from robolearn.cli import main; main(['--help'])",
        "import robolearn.spec, robolearn.registry, robolearn.config, robolearn.errors",
        "import robolearn.envs, robolearn.policies, robolearn.data, robolearn.hardware, robolearn.configs",
    ],
)
def test_light_imports_stay_light(code):
    assert loaded(code) & (HEAVY | {"numpy"} - ({"numpy"} if "spec" in code else set())) == set()


@pytest.mark.parametrize("module", ["contracts", "rollout", "plan", "buffer", "evaluation", "collect", "report"])
def test_the_core_runs_without_torch_and_simulator(module):
    assert loaded(f"import robolearn.{module}") & (HEAVY - {"scipy"}) == set()


def test_the_probe_sees_a_heavy_import():
    assert "torch" in loaded("import torch")
