"""Metrics, datasets, protocols, and the runner and reports of `ttt3r eval`."""
