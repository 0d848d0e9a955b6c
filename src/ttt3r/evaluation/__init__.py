"""Errors of trajectories and depth, and what trivial answers score."""
