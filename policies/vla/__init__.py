"""Vision-language-action policies: any backbone of `robolearn.nets.backbones` under any action head."""

from robolearn.policies.vla.policy import VLAConfig, VLAPolicy

__all__ = ["VLAConfig", "VLAPolicy"]
