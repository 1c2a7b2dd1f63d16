"""Attention by two products, where it is faster, against PyTorch's own."""

import pytest
import torch
import torch.nn.functional as F

from robolearn.nets.layers import attend

SOME = torch.rand(3, 1, 5, 7, generator=torch.Generator().manual_seed(1)) < 0.6
SOME[..., 0] = True  # everyone may look somewhere


@pytest.mark.parametrize(
    ("groups", "queries", "options"),
    [(4, 5, {}), (2, 5, {"mask": SOME}), (1, 5, {}), (4, 7, {"causal": True})],
    ids=["plain", "grouped and masked", "one key head", "causal"],
)
@pytest.mark.parametrize("autocast", [False, True], ids=["bfloat16", "autocast"])
def test_two_products_attend_as_the_fused_kernel(groups, queries, options, autocast):
    draw = torch.Generator().manual_seed(0)
    shapes = (4, queries), (groups, 7), (groups, 7)
    whole = [torch.randn(3, heads, length, 8, generator=draw).requires_grad_() for heads, length in shapes]
    half = [(x if autocast else x.bfloat16()).detach().requires_grad_() for x in whole]
    wanted = F.scaled_dot_product_attention(
        *whole, attn_mask=options.get("mask"), is_causal=options.get("causal", False), enable_gqa=True
    )
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = attend(*half, **options)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), wanted, atol=0.03, rtol=0.03)
    wanted.square().sum().backward()
    found.float().square().sum().backward()
    for one, other in zip(half, whole, strict=True):
        torch.testing.assert_close(one.grad.float(), other.grad, atol=0.15, rtol=0.05)


def test_in_full_precision_the_fused_kernel_is_asked():
    x = torch.randn(2, 4, 6, 8)
    assert torch.equal(attend(x, x, x), F.scaled_dot_product_attention(x, x, x))
