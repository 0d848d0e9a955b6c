"""A run in one picture: input, depth, confidence, top and side view, gate, joins of segments."""
