"""Robots: transports, drivers, executor, safety filter and twin."""

from robolearn._rooms import guard

guard(__name__)
