"""The style of ACT and its pictures."""

from dataclasses import replace

import torch


def test_style_ignores_padded_actions(bench):
    policy = bench.policy("act").eval()
    batch = bench.batch(policy)
    batch["action_is_pad"][:, 5:] = True
    first = policy._encode_style(batch)[0]
    batch["action"][:, 5:] = 9.0
    torch.testing.assert_close(first, policy._encode_style(batch)[0])


def test_the_kl_weight_closes_the_style(bench):
    """Unexplained variation goes through the style when it is free, and not when it is dear."""

    def make_batch(size=64):
        sign = torch.randint(0, 2, (size, 1, 1)) * 2.0 - 1
        return {"observation.state": torch.zeros(size, 1, 3), "action": sign.expand(-1, 2, 2)}

    errors = {}
    for weight in (0.001, 100.0):
        policy = bench.policy("act", history=1, chunk=2, kl_weight=weight)
        bench.train(policy, make_batch, 80, rate=1e-2)
        errors[weight] = policy.loss(make_batch())[1]["action_l1"]
    assert errors[0.001] < 0.3 < 0.8 < errors[100.0]


def test_every_picture_and_instruction_counts(bench):
    known = {key: f for key, f in bench.everything.observations.items() if f.kind != "points"}
    policy = bench.policy("act", replace(bench.everything, observations=known)).eval()
    batch, noise = bench.batch(policy), bench.noise(policy)
    with torch.no_grad():
        before = policy.sample(batch, noise)
        for key in policy.spec.observations:
            changed = batch | {key: batch[key].flip(-1)}
            assert not torch.equal(before, policy.sample(changed, noise)), key
