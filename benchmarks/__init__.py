"""Measurements behind the claims of the documentation; each module is one command."""
