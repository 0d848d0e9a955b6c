"""Streaming 3D reconstruction from video: poses, depth and points in constant memory."""

__version__ = "0.1.0"
