"""A finished run brought to metres: by known positions, GPS, or a known distance."""
