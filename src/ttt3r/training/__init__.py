"""The recipe that makes the built-in weights, from scenes that ttt3r renders itself."""
