"""What it looks like when memory runs out."""

import torch

# On a processor, and of CUDA's libraries, PyTorch says so in a plain RuntimeError.
MEMORY_ERRORS = (torch.OutOfMemoryError, MemoryError, RuntimeError)
WORDS = ("allocate memory", "out of memory", "ALLOC_FAILED")


def shortage(error: Exception) -> str | None:
    """Return what an error says, in one line, if it means too little memory; else None."""
    text = str(error).partition("\n")[0]
    certain = isinstance(error, torch.OutOfMemoryError | MemoryError)
    if certain or any(word in text for word in WORDS):
        return f"out of memory: {text}"
    return None
