"""The run folder: one file per frame, a trajectory and a manifest; written, read, resumed."""
