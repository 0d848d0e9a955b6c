"""Several rules on one input: one encoder, one batch of streams, one table."""
