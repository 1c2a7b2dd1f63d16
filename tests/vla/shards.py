"""Train two steps alone and as two FSDP ranks, for each case: imported once, forked for every process."""

import os
import socket
import sys
import traceback
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))

import conftest

from robolearn.distributed import join
from robolearn.learner import Learner
from robolearn.nets.backbones import build_backbone
from robolearn.run import TrainConfig

OPTIONS = TrainConfig(learning_rate=1e-3, warmup_steps=1, precision="fp32", accumulate=2)


def steps(case: str, result: Path) -> None:
    torch.set_num_threads(1)
    family, mode = case.split("-")
    bench = conftest.Bench()
    processes, device = join(torch.device("cpu"), shard=True)
    policy, pipeline, spec = bench.build(bench.config(family, tuning={"mode": mode, "rank": 2}))
    learner = Learner(policy, OPTIONS, 0, device, processes)
    batch = bench.batch(pipeline, spec)
    halves = [{key: value[2 * i : 2 * i + 2] for key, value in batch.items()} for i in range(2)]
    for step in range(2):
        learner.step(step, [(i, halves[i]) for i in processes.slices(2)], 2)
    weights = learner.weights()
    if processes.first:
        torch.save(weights, result)
    processes.leave()


def fork(case: str, result: Path, rank: int, count: int, port: int) -> int:
    child = os.fork()
    if child:
        return child
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    status = 1
    try:
        steps(case, result)
        status = 0
    except Exception:  # noqa: BLE001 - the exit status says so
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(status)


def main(folder: Path, cases: list[str]) -> int:
    # What the steps import belongs to the parent, which starts no thread: neither backward passes nor tokenizers.
    for case in cases:
        build_backbone(conftest.Bench().backbone(case.split("-")[0]))
    failed = 0
    for case in cases:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        children = [fork(case, folder / f"{case}-alone.pt", 0, 1, port)]
        children += [fork(case, folder / f"{case}-shards.pt", rank, 2, port) for rank in range(2)]
        failed += sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0 for child in children)
    return failed


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
