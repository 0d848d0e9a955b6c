"""Pure tensor functions on rotations, poses, cameras and pointmaps; any leading batch shape."""
