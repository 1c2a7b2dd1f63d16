"""Shared networks and encoders: plain modules over tensors, chosen by small frozen configs."""
