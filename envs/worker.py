"""Environments in a process of their own: calls come in over a socket, arrays go out. Needs numpy only.

Run as `python -I worker.py SOCKET MAKER OPTIONS`, by any Python from 3.8 on. MAKER is one of the files in
`makers/`; its `make(options)` returns rows with gymnasium's vector interface and a description of them.
A message is one JSON object, then the bytes of every array that it announces.
"""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

__all__ = ["receive", "send", "serve"]

_KINDS = "biuf"
_TOLD = ("success", "diverged")  # entries of `info` that travel


def send(connection: Connection, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Send one message; arrays of text travel inside the JSON."""
    told, numeric = [], []
    for name, value in arrays.items():
        value = np.asarray(value)
        if value.dtype.kind == "U":
            told.append({"name": name, "text": value.tolist()})
        else:
            told.append({"name": name, "dtype": value.dtype.str, "shape": list(value.shape)})
            numeric.append(value)
    connection.send_bytes(json.dumps({**header, "arrays": told}).encode())
    for value in numeric:
        connection.send_bytes(value.tobytes())


def receive(connection: Connection) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the header and arrays of one message; raises `ValueError` for bytes that are no such array."""
    header = json.loads(connection.recv_bytes())
    arrays = {}
    for told in header.pop("arrays"):
        if "text" in told:
            arrays[told["name"]] = np.array(told["text"], dtype=np.str_)
            continue
        kind, shape, content = np.dtype(told["dtype"]), tuple(told["shape"]), connection.recv_bytes()
        if kind.kind not in _KINDS or kind.itemsize * int(np.prod(shape)) != len(content):
            raise ValueError(f"{told['name']}: {len(content)} bytes for {kind} {shape}")
        arrays[told["name"]] = np.frombuffer(content, kind).reshape(shape)
    return header, arrays


def serve(connection: Connection, env: Any, description: Mapping[str, Any]) -> None:
    """Answer calls until the other side closes; an error inside the environment is an answer too."""
    while True:
        try:
            call, arrays = receive(connection)
        except EOFError:
            return
        try:
            header, answer = _answer(env, description, call, arrays)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other side must hear of it
            header, answer = {"error": f"{type(error).__name__}: {error}"}, {}
        send(connection, header, answer)


def _answer(
    env: Any, description: Mapping[str, Any], call: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> tuple[Mapping[str, Any], dict[str, np.ndarray]]:
    if call["call"] == "describe":
        return description, {}
    if call["call"] == "render":
        return {}, {"picture": np.asarray(env.render(call["row"]))}
    if call["call"] == "reset":
        options = {"reset_mask": arrays["mask"].astype(bool), "episode": arrays["episode"]}
        obs, _ = env.reset(seed=call["seeds"], options=options)
        return {}, {f"obs:{key}": value for key, value in obs.items()}
    obs, reward, terminated, truncated, info = env.step(arrays["actions"])
    answer = {"reward": reward, "terminated": terminated, "truncated": truncated}
    answer.update({name: np.asarray(info[name]) for name in _TOLD if name in info})
    return {}, {**{f"obs:{key}": value for key, value in obs.items()}, **answer}


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])), *runpy.run_path(sys.argv[2])["make"](json.loads(sys.argv[3])))
