"""The safety filter and the executor keep every limit without assertions too (`python -O`)."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import sys
if __debug__: sys.exit("assertions are on")
import numpy as np
from robolearn.contracts import RobotState
from robolearn.errors import HardwareError
from robolearn.hardware.limits import limits_of
from robolearn.hardware.safety import Command, Mode, SafetyState, arm, step
from robolearn.robots.panda import PANDA

limits, home, now = limits_of(PANDA, 250.0), np.array(PANDA.home_rad), 10**9
reading = lambda q: RobotState(now, PANDA.joints, q, np.zeros(7))
state, draw, q, events = arm(limits, SafetyState(), reading(home), now), np.random.default_rng(0), home, set()
sent = [home] * 3
for i in range(600):
    now += 4_000_000
    target = draw.uniform(-4, 4, 7) if i % 3 == 0 else np.where(draw.random(7) < 0.1, np.nan, home + 0.1)
    target = home if i < 5 else target
    state, decision = step(limits, state, Command(target, np.zeros(7), now), reading(q), now)
    q = decision.send
    sent.append(q)
    events |= set(decision.events)
rate = np.array(sent)
for bound in (limits.velocity_rad_s, limits.acceleration_rad_s2, limits.jerk_rad_s3):
    rate = np.diff(rate, axis=0) / 0.004
    if (np.abs(rate) > bound * 1.0001 + 1e-6).any(): sys.exit("a limit is broken")
if not {"not_finite", "limited"} <= events: sys.exit(f"only {events}")
if np.abs(np.array(sent) - home).max() < 0.01: sys.exit("it never moved")
try:
    arm(limits, SafetyState(), reading(home + 9), now)
except HardwareError:
    sys.exit(0)
sys.exit("armed outside the limits")
"""


def test_limits_hold_without_assertions():
    run = subprocess.run([sys.executable, "-O", "-c", CODE], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]


def test_the_tests_of_filter_and_executor_pass_without_assertions_in_the_code():
    """Test modules keep their assertions under -O because pytest rewrites them."""
    tests = ["tests/hardware/test_safety.py", "tests/hardware/test_executor.py"]
    picked = "finite or latch or starvation or freeze or reached"
    command = [sys.executable, "-O", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", picked, *tests]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-2000:]
    assert " passed" in run.stdout
