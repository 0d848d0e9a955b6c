"""What it looks like when memory runs out."""

import torch

# On a processor PyTorch says so in a plain RuntimeError.
MEMORY_ERRORS = (torch.OutOfMemoryError, MemoryError, RuntimeError)


def shortage(error: Exception) -> str | None:
    """Return what an error says if it means too little memory, else None."""
    text = str(error).partition("\n")[0]
    if type(error) is RuntimeError and "allocate memory" not in text:
        return None
    return f"out of memory: {text}"
