"""Running streams: sessions, segments, and the run folder they write."""
