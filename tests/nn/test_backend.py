import pytest
import torch

from ttt3r.errors import SettingError
from ttt3r.nn import backend
from ttt3r.nn.dpt import Dpt
from ttt3r.nn.layers import Linear, PatchEmbed
from ttt3r.nn.vggt_dpt import VggtDpt


@pytest.fixture(autouse=True)
def decided_anew():
    backend.convolutions_outrun_products.cache_clear()
    yield
    backend.convolutions_outrun_products.cache_clear()


@pytest.mark.parametrize(("capability", "convolves"), [("AVX512", True), ("AVX2", False)])
def test_the_rule(monkeypatch, capability, convolves):
    monkeypatch.delenv(backend.LINEAR_VARIABLE, raising=False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert backend.convolutions_outrun_products() is convolves


def test_a_variable_overrides_the_rule(monkeypatch):
    layer, x = Linear(8, 4), torch.randn(backend.MANY_ROWS, 8)
    results = {}
    for name in ("product", "convolution"):
        monkeypatch.setenv(backend.LINEAR_VARIABLE, name)
        backend.convolutions_outrun_products.cache_clear()
        assert backend.product_by_convolution(x) is (name == "convolution")
        assert not backend.product_by_convolution(x[1:])
        assert not backend.product_by_convolution(x.double())
        results[name] = layer(x)
    # Sums of 8 float32 products of about 1: some tens of eps, 1.2e-7.
    torch.testing.assert_close(*results.values(), rtol=4e-6, atol=4e-6)


def test_another_value_is_refused(monkeypatch):
    monkeypatch.setenv(backend.LINEAR_VARIABLE, "fast")
    with pytest.raises(SettingError, match="'product' or 'convolution'"):
        backend.convolutions_outrun_products()


def tf32() -> bool:
    flags = torch.backends.cudnn
    if hasattr(flags, "conv"):  # torch 2.9 and later
        return flags.conv.fp32_precision == "tf32"
    return flags.allow_tf32


def test_exact_float32_ends_with_its_context():
    assert tf32()  # torch's default
    with pytest.raises(KeyError), backend.exact_float32():
        assert not tf32()
        raise KeyError
    assert tf32()


def run_dpt():
    network = Dpt((8, 8, 8, 8), (4, 4, 4, 4), feature=6, last=4, out=3)
    return network, lambda: network([torch.randn(1, 4, 8)] * 4, (2, 2))


def run_vggt_dpt():
    network = VggtDpt(8, (4, 4, 4, 4), features=8, out=2)
    return network, lambda: network([torch.randn(1, 4, 8)] * 4, (28, 28))


def run_patches():
    network = PatchEmbed(3, 8, 16)
    return network, lambda: network(torch.randn(1, 3, 32, 32))


@pytest.mark.parametrize("case", [run_dpt, run_vggt_dpt, run_patches])
def test_convolutions_of_heads_and_patches_are_exact(case):
    """Every convolution inside sees the exact setting."""
    network, run = case()
    seen = []
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            module.register_forward_hook(lambda *_: seen.append(tf32()))
    run()
    assert seen and not any(seen) and tf32()
