"""The choice of a network by the `name` of its config.

Every network has one interface: `build(chunk, dim, shapes, times)` gives a module that maps
(actions [B,K,A], time [B] or [B,times], condition) to [B,K,A], where the condition is a tuple of token
groups [B,N,D] of `shapes`.
"""

from robolearn.nets.mlp import MLPConfig
from robolearn.nets.transformer import TransformerConfig
from robolearn.nets.unet1d import UNetConfig

__all__ = ["MLPConfig", "NetworkConfig", "TransformerConfig", "UNetConfig"]

NetworkConfig = MLPConfig | UNetConfig | TransformerConfig
