"""Which scenes are for what: seeds of clips, kept apart.

Nothing is ever chosen by looking at test scenes.
"""

VALIDATION_SEEDS = 2_000_000
TEST_SEEDS = 3_000_000
TRAINING_SEEDS = 10_000_000
LAST_SEED = 100_000_000
