"""Loops: places that a stream comes back to after a reset, and what follows from them."""
