"""The policy server and its client over real sockets."""

import asyncio
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import msgpack
import numpy as np
import pytest
import websockets.sync.client
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame
from websockets.streams import StreamReader

from robolearn.errors import ConfigError, WireError
from robolearn.serve.broker import ActionChunkBroker
from robolearn.serve.client import WebsocketClientPolicy
from robolearn.serve.codec import Limits, pack
from robolearn.serve.image_tools import convert_to_uint8, resize_with_pad
from robolearn.serve.server import PolicyServer, ServerConfig
from robolearn.serve.wire import Wire

TOKEN = "t" * 22


def connect(port, **options):
    return websockets.sync.client.connect(f"ws://127.0.0.1:{port}", compression=None, **options)


def drain(wire):
    while True:
        wire.recv()


def test_a_chunk_comes_back(serve, echo, libero):
    client = WebsocketClientPolicy(port=serve(echo(), preset="libero"))
    reply = client.infer(libero)
    assert np.array_equal(reply["actions"], np.tile(np.arange(8.0), (5, 1)))
    assert reply["policy_timing"]["infer_ms"] >= 0
    assert "prev_total_ms" not in reply["server_timing"]
    assert client.infer(libero)["server_timing"]["prev_total_ms"] > 0
    assert client.get_server_metadata()["robot"] == "panda"
    client.close()


def test_the_exchange_is_openpis(serve, echo, libero):
    with connect(serve(echo(), preset="libero"), additional_headers={"Authorization": "Api-Key anything"}) as wire:
        assert isinstance(msgpack.unpackb(wire.recv()), dict)
        wire.send(pack(libero))
        reply = msgpack.unpackb(wire.recv())
    assert reply["actions"][b"dtype"] == "<f4"
    assert reply["actions"][b"shape"] == [5, 8]
    assert set(reply) == {"actions", "policy_timing", "server_timing"}


def test_droid_and_aloha_presets(serve, echo):
    droid = echo(images=("exterior_image_1_left", "wrist_image_left"), shape=(8, 8, 3))
    client = WebsocketClientPolicy(port=serve(droid, preset="droid"))
    image = np.zeros((8, 8, 3), np.uint8)
    obs = {
        "observation/exterior_image_1_left": image,
        "observation/wrist_image_left": image,
        "observation/joint_position": np.arange(7.0),
        "observation/gripper_position": np.array([0.5]),
        "prompt": np.str_("open the drawer"),
    }
    assert np.allclose(client.infer(obs)["actions"][0], [0, 1, 2, 3, 4, 5, 6, 0.5])
    assert droid.seen[0]["task"].tolist() == [["open the drawer"]]
    client.close()
    cameras = ("cam_high", "cam_low", "cam_left_wrist", "cam_right_wrist")
    client = WebsocketClientPolicy(port=serve(echo(images=cameras, shape=(8, 6, 3), dim=14), preset="aloha"))
    images = {name: np.zeros((3, 8, 6), np.uint8) for name in cameras}
    assert client.infer({"state": np.ones(14), "images": images, "prompt": "fold"})["actions"].shape == (5, 14)
    client.close()


def test_history_is_kept_per_connection(serve, echo):
    actor = echo(history=2, images=())
    client = WebsocketClientPolicy(port=serve(actor))
    for value in (1.0, 2.0):
        client.infer({"observation.state": np.full(8, value), "task": "go"})
    assert actor.seen[0]["observation.state"][0, :, 0].tolist() == [1.0, 1.0]
    assert actor.seen[1]["observation.state"][0, -1, 0] == 2.0
    client.reset()
    client.infer({"observation.state": np.full(8, 3.0), "task": "go"})
    assert actor.seen[2]["observation.state"][0, :, 0].tolist() == [3.0, 3.0]
    client.infer({"observation.state": np.stack([np.full(8, 5.0), np.full(8, 6.0)]), "task": "go"})
    assert actor.seen[3]["observation.state"][0, :, 0].tolist() == [5.0, 6.0]
    client.close()


BAD = {
    "missing key": lambda obs: obs.pop("observation/state"),
    "wrong shape": lambda obs: obs.update({"observation/state": np.zeros(7)}),
    "not finite": lambda obs: obs.update({"observation/state": np.full(8, np.nan)}),
    "infinite": lambda obs: obs.update({"observation/state": np.full(8, np.inf)}),
    "float image": lambda obs: obs.update({"observation/image": np.zeros((224, 224, 3))}),
    "image size": lambda obs: obs.update({"observation/image": np.zeros((8, 8, 3), np.uint8)}),
    "prompt as number": lambda obs: obs.update({"prompt": 3}),
    "ragged state": lambda obs: obs.update({"observation/state": [[1.0], [1.0, 2.0]]}),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_observation_gets_a_short_text_then_1011(serve, echo, libero, name):
    port = serve(echo(), preset="libero")
    BAD[name](libero)
    with connect(port) as wire:
        wire.recv()
        wire.send(pack(libero))
        text = wire.recv()
        with pytest.raises(ConnectionClosed) as closed:
            wire.recv()
    assert isinstance(text, str)
    assert len(text) <= 500
    assert "Traceback" not in text
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1011


def test_malformed_frames_do_not_disturb_another_client(serve, echo, libero):
    port = serve(echo(), preset="libero", limits=Limits(frame_bytes=1 << 20))
    client = WebsocketClientPolicy(port=port)
    for frame in (b"", b"\xc1", b"\x91" * 600 + b"\xc0", pack([1]), pack({"a": 1}), "text", b"\0" * (2 << 20)):
        with connect(port, max_size=None) as wire:
            wire.recv()
            wire.send(frame)
            with pytest.raises(ConnectionClosed) as closed:
                drain(wire)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == (1009 if len(frame) > 1 << 20 else 1011)
        assert client.infer(libero)["actions"].shape == (5, 8)
    client.close()


def test_no_inner_error_reaches_a_client(serve, echo, libero):
    actor = echo()
    actor.broken = RuntimeError("secret path /home/me")
    client = WebsocketClientPolicy(port=serve(actor, preset="libero"))
    with pytest.raises(WireError, match="internal error") as raised:
        client.infer(libero)
    assert "secret" not in str(raised.value)
    actor.broken = None
    assert client.infer(libero)["actions"].shape == (5, 8)  # the client connects again
    client.close()


def test_a_non_finite_action_is_never_sent(serve, echo, libero):
    actor = echo()
    actor.act = lambda obs, noise, prefix=None: np.full((1, 5, 8), np.nan)
    client = WebsocketClientPolicy(port=serve(actor, preset="libero"))
    with pytest.raises(WireError, match="non-finite"):
        client.infer(libero)


def test_inference_may_take_longer_than_the_ping_timeout(serve, echo, libero):
    actor = echo()
    actor.delay_s = 1.0
    port = serve(actor, preset="libero", ping_interval_s=0.1, ping_timeout_s=0.2)
    client = WebsocketClientPolicy(port=port)
    assert client.infer(libero)["actions"].shape == (5, 8)
    client.close()


def test_a_frozen_client_is_dropped_and_others_are_served(serve, echo, libero):
    port = serve(echo(), preset="libero", ping_interval_s=0.1, ping_timeout_s=0.2)
    with socket.create_connection(("127.0.0.1", port)) as frozen:
        frozen.sendall(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        client = WebsocketClientPolicy(port=port)
        assert client.infer(libero)["actions"].shape == (5, 8)
        frozen.settimeout(10)
        while frozen.recv(4096):  # ends: the server gave up on the missing pongs
            pass
    client.close()


def test_a_late_reply_never_answers_the_next_question(serve, echo, libero):
    actor = echo()
    client = WebsocketClientPolicy(port=serve(actor, preset="libero"), timeout_s=0.3)
    actor.delay_s = 0.8
    with pytest.raises(WireError, match="in time"):
        client.infer(libero)
    actor.delay_s = 0.0
    client._timeout_s = 10.0
    reply = client.infer(libero | {"observation/state": np.full(8, 9.0)})
    assert reply["actions"][0, 0] == 9.0
    client.close()


def test_a_client_that_was_silent_for_long_connects_again(serve, echo, libero):
    client = WebsocketClientPolicy(port=serve(echo(), preset="libero", ping_interval_s=0.1, ping_timeout_s=0.2))
    assert client.infer(libero)["actions"].shape == (5, 8)
    time.sleep(1.0)
    assert client.infer(libero)["actions"].shape == (5, 8)
    client.close()


@pytest.mark.parametrize("size", [0, 1, 7, 8, 125, 126, 65535, 65536, 301_347])
def test_frames_are_masked_as_the_library_unmasks_them(size):
    wire, payload, reader = Wire.__new__(Wire), np.random.default_rng(size).bytes(size), StreamReader()
    wire._frame = bytearray()
    reader.feed_data(bytes(wire._masked(memoryview(payload))))
    with pytest.raises(StopIteration) as done:
        next(Frame.parse(reader.read_exact, mask=True))
    assert bytes(done.value.value.data) == payload
    assert not reader.buffer


def test_brief_and_long_inferences_never_overlap(serve, echo):
    actor, small = echo(images=()), {"observation.state": np.zeros(8), "task": "go"}
    running, most, act = [0], [0], actor.act

    def counted(obs, noise, prefix=None):
        running[0] += 1
        most[0] = max(most[0], running[0])
        time.sleep(0.02 * float(obs["observation.state"][0, 0, 0]))
        running[0] -= 1
        return act(obs, noise)

    actor.act = counted
    port = serve(actor)

    def ask(long):
        client = WebsocketClientPolicy(port=port)
        for _ in range(20):
            client.infer(small | {"observation.state": np.full(8, float(long))})
        client.close()

    threads = [threading.Thread(target=ask, args=(i % 2,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most[0], len(actor.seen)) == (1, 80)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
def test_a_certificate_that_is_none_is_refused(echo, tmp_path):
    (tmp_path / "odd.pem").write_text("odd")
    for name in ("absent.pem", "odd.pem"):
        server = PolicyServer(echo(), ServerConfig(port=0, certificate=str(tmp_path / name), private_key="odd.key"))
        with pytest.raises(ConfigError, match="certificate cannot be used"):
            asyncio.run(server.start())


def test_tls(serve, echo, libero, tmp_path, monkeypatch):
    certificate, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate]
    command += ["-days", "1", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    port = serve(echo(), preset="libero", certificate=certificate, private_key=key)
    with pytest.raises(WireError, match="certificate"):
        WebsocketClientPolicy("wss://127.0.0.1", port)
    monkeypatch.setenv("SSL_CERT_FILE", certificate)
    client = WebsocketClientPolicy("wss://127.0.0.1", port)
    assert client.infer(libero)["actions"].shape == (5, 8)
    client.close()


def test_tokens(serve, echo, libero):
    port = serve(echo(), preset="libero", token=TOKEN)
    client = WebsocketClientPolicy(port=port, api_key=TOKEN)
    assert client.infer(libero)["actions"].shape == (5, 8)
    client.close()
    for wrong in (None, "", TOKEN[:-1], TOKEN + "t", "é" * 22):
        with pytest.raises((WireError, InvalidStatus)):
            WebsocketClientPolicy(port=port, api_key=wrong)


@pytest.mark.parametrize(
    "options",
    [
        {"token": ""},
        {"token": "short"},
        {"host": "0.0.0.0"},
        {"host": "0.0.0.0", "token": TOKEN},
        {"host": "::", "token": TOKEN},
        {"host": "robot.lab", "insecure": True},
        {"certificate": "a.pem"},
        {"preset": "libre"},
    ],
)
def test_unsafe_configs_are_refused(options):
    with pytest.raises(ConfigError):
        ServerConfig(**options)


def test_health_and_origin(serve, echo):
    port = serve(echo(), max_clients=1)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=10) as reply:
        assert (reply.status, reply.read()) == (200, b"OK\n")
    with pytest.raises(InvalidStatus):
        connect(port, origin="http://evil.example")
    with connect(port) as first:
        first.recv()
        with pytest.raises(InvalidStatus) as refused:
            connect(port)
    assert refused.value.response.status_code == 503


def test_broker_plays_each_chunk_once():
    class Policy:
        asked = 0

        def infer(self, obs):
            self.asked += 1
            return {"actions": np.arange(4)[:, None] + 10 * self.asked, "policy_timing": {"infer_ms": 1.0}}

        def reset(self):
            self.asked = 0

    broker = ActionChunkBroker(Policy(), action_horizon=3)
    assert [int(broker.infer({})["actions"][0]) for _ in range(5)] == [10, 11, 12, 20, 21]
    broker.reset()
    assert int(broker.infer({})["actions"][0]) == 10
    with pytest.raises(WireError, match="shorter"):
        ActionChunkBroker(Policy(), action_horizon=5).infer({})


def test_image_tools():
    wide = np.full((2, 100, 200, 3), 255, np.uint8)
    small = resize_with_pad(wide, 50, 50)
    assert small.shape == (2, 50, 50, 3)
    assert small[:, 13:37].min() == 255
    assert small[:, :12].max() == small[:, 38:].max() == 0
    assert convert_to_uint8(np.array([0.0, 1.0])).tolist() == [0, 255]


def test_the_client_imports_only_numpy_websockets_and_msgpack():
    code = (
        "import sys, robolearn.serve.client, robolearn.serve.broker;"
        "heavy = {'torch', 'mujoco', 'gymnasium', 'cv2', 'hydra', 'scipy', 'lerobot', 'PIL'};"
        "sys.exit(str(sorted(heavy & set(sys.modules))) if heavy & set(sys.modules) else 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
