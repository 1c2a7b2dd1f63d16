"""Environments: batched MuJoCo tasks and adapters to gymnasium suites."""

from robolearn._rooms import guard

guard(__name__)
