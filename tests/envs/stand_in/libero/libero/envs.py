"""A point moved by the first action entry; it succeeds at x >= 2."""

import numpy as np


class OffScreenRenderEnv:
    """LIBERO's environment, as far as a policy sees it."""

    def __init__(self, bddl_file_name, camera_heights, camera_widths):
        self.size, self.x, self.idle = (camera_heights, camera_widths, 3), 0.0, 0

    def seed(self, seed):
        """Seeds decide nothing: states are stored."""

    def reset(self):
        """Start anew."""
        self.x, self.idle = 0.0, 0

    def set_init_state(self, state):
        """Start from a stored state."""
        self.x = float(state[0])
        return self._look()

    def step(self, action):
        """Move."""
        assert len(action) == 7
        self.idle += not np.any(action[:6])
        self.x += float(action[0])
        return self._look(), float(self.x >= 2), self.x >= 2, {}

    def _look(self):
        picture = np.zeros(self.size, np.uint8)
        picture[0, 0] = 200  # after half a turn: bottom right
        turned = np.array([0.0, 0.0, np.sin(0.25), np.cos(0.25)])
        return {
            "agentview_image": picture,
            "robot0_eye_in_hand_image": picture,
            "robot0_eef_pos": np.array([self.x, self.idle, 0.0]),
            "robot0_eef_quat": turned,
            "robot0_gripper_qpos": np.array([0.02, -0.02]),
        }
