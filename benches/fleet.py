#!/usr/bin/env python3
"""fleet.py KEYSIDE [SIDECARS] [KEYS] [ROUNDS] [RATE]: a fleet, and how soon a revoked key is dead in all of it.

Starts the given binary as one control plane (SQLite) and as so many sidecars (50 if not said) that have so many keys
(10000) from it, in front of an upstream of its own. Prints how long lists, searches and pages take, how long the whole
set takes and how large it is, how soon a sidecar is ready with it, what the processes hold in memory, and what they do
while nothing happens. Then, so many times (200): mints a key, waits until it passes everywhere, has clients ask every
sidecar with it, RATE times a second in all (500; more where the machine bears it), and revokes it. Prints the median,
the 99th percentile and the largest of each: from the mint until the key passes everywhere, from the revoke until its
answer, and from its commit to the last acknowledgement, as the control plane measures it. Exits with 1 when a request
that began after the answer was let through by a sidecar that the answer lists as acknowledged. Needs Python alone, on
Linux; ends all that it started.
"""
import asyncio
import base64
import http.client
import json
import multiprocessing
import os
import pathlib
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

HAMMERS, IDLE = 2, 10
SYNC, ADMIN = "sync-token-of-the-bench-0123456789-abcdef", "kop_" + "A" * 43
MINT = """[listen]
plaintext = true
address = "127.0.0.1:0"
[upstream]
url = "http://127.0.0.1:1"
[keys]
file = "keys.toml"
pepper = { file = "pepper" }
[keys.mint]
hash = "hmac-sha256"
"""
CONTROL = """[listen]
plaintext = true
address = "127.0.0.1:%d"
[admin]
address = "127.0.0.1:0"
[sync]
tokens = { file = "sync-tokens" }
[setup]
token = { file = "admin-token" }
[presets]
configuration = "keyside.toml"
[keys]
pepper = { file = "pepper" }
"""
SIDECAR = """[listen]
plaintext = true
address = "127.0.0.1:0"
[admin]
address = "127.0.0.1:0"
[upstream]
url = "http://127.0.0.1:%d"
[keys]
pepper = { file = "pepper" }
control = { url = "%s", token = { file = "sync-tokens" }, instance = "%s" }
[limits]
per_ip = []
per_key = []
failures_per_ip = []
[log]
access = "off"
"""


async def upstream(port):
    async def talk(reader, writer):
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", port) as server:
        await server.serve_forever()


async def ask(reader, writer, authorization):
    writer.write(b"GET / HTTP/1.1\r\nHost: api\r\nAuthorization: " + authorization + b"\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
    await reader.readexactly(int(fields.get(b"content-length", 0)))
    return int(head[9:12])


async def call(port, authorization, stop, told, pause):
    """Asks until it is told to stop: notes when the last request began that was let through."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while not stop.is_set():
        began = time.monotonic()
        status = await ask(reader, writer, authorization)
        told["statuses"][status] = told["statuses"].get(status, 0) + 1
        if status == 200:
            told["last"] = max(told["last"], began)
        await asyncio.sleep(pause)
    writer.close()


def hammer(ports, pipe, pause):
    """Callers of some sidecars, one a sidecar, in a process of their own."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)

    async def rounds():
        loop = asyncio.get_running_loop()
        while (authorization := await loop.run_in_executor(None, pipe.recv)) is not None:
            stop, told = asyncio.Event(), {port: {"last": 0, "statuses": {}} for port in ports}
            calls = [asyncio.ensure_future(call(port, authorization, stop, told[port], pause)) for port in ports]
            await loop.run_in_executor(None, pipe.recv)
            stop.set()
            await asyncio.gather(*calls)
            pipe.send(told)

    asyncio.run(rounds())


class Process:
    """The executable, with its log."""

    def __init__(self, keyside, command, config):
        self.lines, self.heard = [], threading.Condition()
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [keyside, command, "--config", config], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        threading.Thread(target=self.read, daemon=True).start()
        line = self.wait("listening")
        self.port = int(line["listener.addresses"].strip("[]").split(",")[0].rsplit(":", 1)[1])
        self.admin = int(line["admin.address"].rsplit(":", 1)[1].rstrip(")\""))

    def read(self):
        for line in self.process.stderr:
            try:
                line = json.loads(line)
            except ValueError:
                continue
            with self.heard:
                self.lines.append(line)
                self.heard.notify_all()

    def wait(self, message, also=lambda line: True, seconds=120):
        found = []

        def is_there():
            found[:] = [line for line in self.lines if line.get("message") == message and also(line)]
            return found

        with self.heard:
            if not self.heard.wait_for(is_there, seconds):
                sys.exit(f"never said {message!r}")
        return found[0]

    def ready(self):
        while True:
            try:
                if get(self.admin, "/readyz")[0] == 200:
                    return time.monotonic() - self.began
            except OSError:
                pass
            time.sleep(0.02)

    def resident(self):
        text = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.split("VmRSS:")[1].split()[0]) / 1024

    def cpu(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self, how=signal.SIGKILL):
        self.process.send_signal(how)
        self.process.wait()


def get(port, path, token=None, method="GET", body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    if body is not None:
        headers["Content-Type"] = "application/json"
    connection.request(method, path, json.dumps(body) if body is not None else None, headers)
    response = connection.getresponse()
    answer = response.read()
    connection.close()
    return response.status, answer


def api(port, method, path, body=None):
    status, answer = get(port, path, ADMIN, method, body)
    if status not in (200, 201):
        sys.exit(f"{method} {path}: {status} {answer}")
    return json.loads(answer)["data"]


def mint(port, name):
    made = api(port, "POST", "/v1/keys", {"name": name, "permissions": ["read"], "owner": "svc"})
    pair = f"{made['consumer_key']}:{made['consumer_secret']}".encode()
    return made["id"], b"Basic " + base64.b64encode(pair)


def passes_everywhere(ports, authorization):
    async def passes(port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while await ask(reader, writer, authorization) != 200:
            await asyncio.sleep(0.002)
        writer.close()

    async def all_of_them():
        await asyncio.gather(*(passes(port) for port in ports))

    asyncio.run(all_of_them())


def browser(port):
    """The cookies of an operator who has signed in by the form."""
    password = "a password of the bench, 0123456789"
    api(port, "POST", "/v1/operators", {"name": "bench", "role": "viewer", "password": password})
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("GET", "/sign-in")
    response = connection.getresponse()
    page = response.read().decode()
    cookies = [line.split(";")[0] for line in response.headers.get_all("Set-Cookie")]
    token = re.search(r'name="csrf" value="([^"]+)"', page)[1]
    form = urllib.parse.urlencode({"csrf": token, "name": "bench", "password": password})
    headers = {"Cookie": "; ".join(cookies), "Content-Type": "application/x-www-form-urlencoded"}
    connection.request("POST", "/sign-in", form, headers | {"Origin": f"http://127.0.0.1:{port}"})
    response = connection.getresponse()
    response.read()
    if response.status != 303:
        sys.exit(f"signing in: {response.status}")
    return "; ".join(line.split(";")[0] for line in response.headers.get_all("Set-Cookie"))


def lists(port, keys):
    """How long lists take: of the API, and the page of keys."""
    cookies = browser(port)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    for start, headers in ("/v1", {"Authorization": f"Bearer {ADMIN}"}), ("", {"Cookie": cookies}):
        for what, query in (
            ("the first page", "limit=50"),
            ("a search that finds one", f"limit=50&search=key%20{keys - 1}"),
            ("a search that finds none", "limit=50&search=nobody"),
            ("the last page", ("limit=50&cursor=" if start else "after=") + base64.urlsafe_b64encode(f"key_{30:026d}".encode()).decode().rstrip("=")),
        ):
            took = []
            for _ in range(21):
                began = time.monotonic()
                connection.request("GET", f"{start}/keys?{query}", headers=headers)
                response = connection.getresponse()
                response.read()
                if response.status != 200:
                    sys.exit(f"{start}/keys?{query}: {response.status}")
                took.append(time.monotonic() - began)
            say(f"{'the API' if start else 'the pages'}, {what}", took)


def free_port():
    with socket.socket() as some:
        some.bind(("127.0.0.1", 0))
        return some.getsockname()[1]


def say(what, seconds):
    ordered = sorted(seconds)
    at = lambda share: ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000
    print(f"{what}: p50 {at(0.5):.1f} ms, p99 {at(0.99):.1f} ms, largest {ordered[-1] * 1000:.1f} ms ({len(ordered)})", flush=True)


def main(keyside, sidecars=50, keys=10_000, rounds=200, rate=500):
    with tempfile.TemporaryDirectory(prefix="keyside-fleet-") as folder:
        started = []
        try:
            return measure(keyside, int(sidecars), int(keys), int(rounds), float(rate), pathlib.Path(folder), started)
        finally:
            for process in started:
                process.stop()


def measure(keyside, sidecars, keys, rounds, rate, folder, started):
    files = {"sync-tokens": SYNC, "admin-token": ADMIN, "pepper": "p" * 48, "keyside.toml": MINT, "keys.toml": ""}
    for name, text in files.items():
        (folder / name).write_text(text)
    port, behind = free_port(), free_port()
    (folder / "control.toml").write_text(CONTROL % port)
    multiprocessing.Process(target=lambda: asyncio.run(upstream(behind)), daemon=True).start()

    # One key is minted; the others are rows like it, written while nobody looks.
    plane = Process(keyside, "control", folder / "control.toml")
    first, _ = mint(port, "first")
    plane.stop(signal.SIGTERM)
    with sqlite3.connect(folder / "control.db") as database:
        (text,) = database.execute("SELECT document FROM keys WHERE id = ?", (first,)).fetchone()
        rows = []
        for number in range(1, keys):
            document = json.loads(text) | {"id": f"key_{number:026d}", "name": f"Key {number}", "prefix": f"ck_{number:040x}"}
            rows.append((document["id"], json.dumps(document)))
        database.executemany("INSERT INTO keys (id, document) VALUES (?, ?)", rows)
    database.close()
    plane = Process(keyside, "control", folder / "control.toml")
    started.append(plane)
    print(f"control plane: listens after {time.monotonic() - plane.began:.2f} s, {plane.resident():.0f} MiB", flush=True)
    for _ in range(2):
        began = time.monotonic()
        _, whole = get(port, "/sync/v1/keys?instance=bench.1&max_stale=1&max_stale_write=1", SYNC)
        took = time.monotonic() - began
    goodbye = {"instance": "bench.1", "epoch": json.loads(whole.splitlines()[0])["epoch"], "goodbye": True}
    get(port, "/sync/v1/report", SYNC, "POST", goodbye)
    count = len(whole.splitlines()) - 2
    print(f"the whole set: {count} rows, {len(whole) / 1e6:.1f} MB in {took:.2f} s", flush=True)

    lists(port, keys)

    ports, ready, names = [], [], {}
    for number in range(sidecars):
        home = folder / f"sidecar-{number}"
        home.mkdir()
        for name in ("sync-tokens", "pepper"):
            (home / name).write_text(files[name])
        (home / "keyside.toml").write_text(SIDECAR % (behind, f"http://127.0.0.1:{port}", f"s{number}"))
        sidecar = Process(keyside, "proxy", home / "keyside.toml")
        started.append(sidecar)
        ready.append(sidecar.ready())
        ports.append(sidecar.port)
        names[f"s{number}"] = sidecar.port
    say("a sidecar is ready after", ready)
    print(f"memory: a sidecar {started[-1].resident():.0f} MiB, the control plane {plane.resident():.0f} MiB", flush=True)
    before = plane.cpu(), sum(process.cpu() for process in started[1:])
    time.sleep(IDLE)
    after = plane.cpu(), sum(process.cpu() for process in started[1:])
    idle = [(then - now) / IDLE * 100 for now, then in zip(before, after)]
    print(f"while nothing happens: control plane {idle[0]:.2f} % of a core, all sidecars {idle[1]:.2f} %", flush=True)

    pipes = []
    for number in range(HAMMERS):
        here, there = multiprocessing.Pipe()
        multiprocessing.Process(target=hammer, args=(ports[number::HAMMERS], there, sidecars / rate), daemon=True).start()
        pipes.append(here)
    minted, answered, broken, pending, asked = [], [], 0, 0, {}
    for number in range(rounds):
        began = time.monotonic()
        key, authorization = mint(port, f"round {number}")
        passes_everywhere(ports, authorization)
        minted.append(time.monotonic() - began)
        for pipe in pipes:
            pipe.send(authorization)
        time.sleep(0.3)
        began = time.monotonic()
        receipt = api(port, "DELETE", f"/v1/keys/{key}")
        answer = time.monotonic()
        answered.append(answer - began)
        time.sleep(0.3)
        acknowledged = {names[name.rsplit(".", 1)[0]] for name in receipt["acknowledged"] if name[0] == "s"}
        pending += sidecars - len(acknowledged)
        for pipe in pipes:
            pipe.send(None)
        for pipe in pipes:
            for sidecar, told in pipe.recv().items():
                for status, count in told["statuses"].items():
                    asked[status] = asked.get(status, 0) + count
                if told["last"] > answer and sidecar in acknowledged:
                    broken += 1
                    print(f"round {number}: let through {told['last'] - answer:.6f} s after the answer", flush=True)
    say("from the mint until it passes everywhere", minted)
    say("from the revoke until its answer", answered)
    with plane.heard:
        said = [line for line in plane.lines if line.get("message") == "a revocation is in force everywhere"]
    say("from the commit to the last acknowledgement", [line["latency_ms"] / 1000 for line in said])
    print(f"requests by status: {asked}; not acknowledged in time: {pending}; let through after the answer: {broken}")
    return 1 if broken else 0


if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    # Whoever ends this ends all that it started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
