"""Compares robosuite's own pictures with ours after the same steps; run by `test_exact.py` in a process of its own.

robosuite wants $MUJOCO_GL before its first import. Prints JSON: picture key → renderer → PSNR [dB].
"""

import json
import sys

import numpy as np

from robolearn.api import make_env
from robolearn.envs.exact.export import open_peer
from robolearn.envs.exact.peer import adopt, reset_peer

CAMERAS = ("agentview", "robot0_eye_in_hand")


def main(renderers: list[str], steps: int = 6) -> None:
    peer = open_peer("Lift", "Panda", cameras=CAMERAS)
    options = {"cameras": CAMERAS, "raw": True, "stop_on_success": False}
    ours = {name: make_env("robosuite/Lift", 1, {**options, "renderer": name}) for name in renderers}
    reset_peer(peer, 3)
    for env in ours.values():
        adopt(env, 0, peer)
    given, obs = {}, {}
    for action in np.random.default_rng(0).uniform(-1, 1, (steps, 7)):
        given = peer.step(action)[0]
        obs = {name: env.step(action[None])[0] for name, env in ours.items()}
    keys = [f"{camera}_image" for camera in CAMERAS]
    sys.stdout.write(
        json.dumps({key: {name: psnr_db(seen[key][0], given[key]) for name, seen in obs.items()} for key in keys})
        + "\n"
    )
    for env in ours.values():
        env.close()


def psnr_db(image: np.ndarray, reference: np.ndarray) -> float:
    error = np.mean((image.astype(np.float64) - reference) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-3)))


if __name__ == "__main__":
    main(sys.argv[1:])
