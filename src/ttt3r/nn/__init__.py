"""Building blocks of the networks; they know nothing of checkpoints, frames or files."""
