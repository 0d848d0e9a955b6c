"""What a query is kept from reading it does not read, and nobody else notices."""

import torch

from ttt3r.nn.attention import CrossAttention
from ttt3r.nn.rope import rotary

# Sums of some tens of products in another order: 80 float32 eps.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@torch.no_grad()
def test_the_first_query_reads_what_it_is_confined_to():
    torch.manual_seed(0)
    network, x, y = CrossAttention(32, 2), torch.randn(2, 5, 32), torch.randn(2, 7, 32)
    reads = torch.tensor([[1, 0, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1]]).bool()

    def at(count: int, which: torch.Tensor | None = None):
        index = torch.arange(count) if which is None else which.nonzero().flatten()
        return rotary(torch.stack((index, 3 * index), dim=1), 16, 100.0, torch.float32)

    mixed = network(x, y, at(5), at(7), first_reads=reads)
    torch.testing.assert_close(mixed[:, 1:], network(x, y, at(5), at(7))[:, 1:], **CLOSE)
    for sample, which in enumerate(reads):
        one = x[sample : sample + 1, :1], y[sample : sample + 1, which]
        alone = network(*one, at(1), at(7, which))
        torch.testing.assert_close(mixed[sample, 0], alone[0, 0], **CLOSE)
