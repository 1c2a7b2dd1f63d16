"""Hydra groups: policy, data, env, train, eval, protocol, algo, backbone, robot, experiment."""

from robolearn._rooms import guard

guard(__name__)
