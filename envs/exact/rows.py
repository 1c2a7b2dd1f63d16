"""The shared base of batched environments, under the name that the exact engine knows it by."""

from robolearn.envs.base import COUNTERS, RowsEnv, ran_away

__all__ = ["COUNTERS", "RowsEnv", "ran_away"]
