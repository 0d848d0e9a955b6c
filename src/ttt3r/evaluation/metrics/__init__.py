"""Errors of trajectories, depth and points: pure functions of arrays."""
