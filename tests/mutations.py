"""Damaged copies of files, for fuzz tests."""

import random
from typing import Any

import pytest

WORDS = (b"null", b"{}", b"[]", b"1e999", b'"', b"-1", b"NaN", b"F16", b"I64", b"9" * 20, b"\xff")


def mutated(content: bytes, generator: random.Random) -> bytes:
    """The content with some bytes changed, cut off, inserted or repeated."""
    data = bytearray(content)
    for _ in range(generator.randint(1, 4)):
        at = generator.randrange(len(data)) if data else 0
        near = generator.randrange(min(700, len(data))) if data else 0
        match generator.randrange(6):
            case 0:
                del data[at:]
            case 1 if data:
                data[near] = generator.randrange(256)
            case 2 if data:
                data[near] ^= 1 << generator.randrange(8)
            case 3:
                data[near:near] = generator.choice(WORDS)
            case 4:
                del data[near : near + generator.randint(1, 9)]
            case 5 if data:
                word = generator.choice(WORDS)
                data[near : near + len(word)] = word
    return bytes(data)


def counts(all_: int) -> list[Any]:
    """How many mutations a test tries: a tenth of them, and all if slow tests are asked for."""
    return [all_ // 10, pytest.param(all_, marks=pytest.mark.slow)]
