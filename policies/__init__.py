"""Policies: one file per method, over shared encoders and networks in robolearn.nets."""

from robolearn._rooms import guard

guard(__name__)
