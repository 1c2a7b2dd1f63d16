"""Datasets: readers, writers, windows and caches."""

from robolearn._rooms import guard

guard(__name__)
