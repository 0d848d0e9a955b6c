"""What a stream's state did over time: a sketch of bounded size, and a judgement of each frame."""
