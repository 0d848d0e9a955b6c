"""Errors that mean too little memory are told from others."""

import pytest
import torch

from ttt3r.stream.shortage import MEMORY_ERRORS, shortage


def test_an_allocation_that_fails_on_a_processor_is_known():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert shortage(caught.value) is not None


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"),
        MemoryError(),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_what_means_too_little_memory(error: Exception):
    said = shortage(error)
    assert isinstance(error, MEMORY_ERRORS)
    assert said is not None and said.startswith("out of memory: ") and "more" not in said


@pytest.mark.parametrize("error", [RuntimeError("shapes do not match"), NotImplementedError("x")])
def test_what_means_something_else(error: Exception):
    assert shortage(error) is None
