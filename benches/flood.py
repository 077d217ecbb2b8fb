#!/usr/bin/env python3
"""flood.py KEYSIDE [ROUNDS]: what a flood of wrong secrets does to callers who are verified.

Starts the given release binary in front of an upstream of its own, with ten argon2id keys. One verified caller asks
200 times a second; in turns, nobody else is there (calm), or 128 connections guess at the secrets of all ten keys, some
hundreds of times a second, each from a new address after ten guesses, so that no limit per address ends the flood and
the queue of slow verifications is always full. Prints the median and the 99th percentile of the verified caller's
latency, in microseconds, for each, their ratio, and the resident memory before and at its highest. Needs Python alone,
on Linux. The guessers run at low priority: on few cores it is Keyside's work that is measured, and not theirs. How busy
all cores were is printed too: above some 80 % in a calm round, the figures are about the machine.
"""
import asyncio
import base64
import http.server
import itertools
import json
import multiprocessing
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time

GUESSERS, CONNECTIONS, PAUSE, KEYS, RATE, SECONDS = 2, 64, 0.12, 10, 200, 5


class Upstream(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        # In one piece: in two, the second would wait for the first to be acknowledged.
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    def log_message(self, *_):
        pass


def serve(ports):
    """In a process of its own, so that it does not share a lock with who measures."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    ports.put(server.server_address[1])
    server.serve_forever()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def request(user, secret):
    credential = base64.b64encode(f"{user}:{secret}".encode()).decode()
    return f"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Basic {credential}\r\n\r\n".encode()


def body_length(head):
    fields = head.lower().split(b"\r\n")
    return next(int(line.split(b":")[1]) for line in fields if line.startswith(b"content-length"))


def connect(port):
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def ask(connection, user, secret):
    connection.sendall(request(user, secret))
    answer = b""
    while b"\r\n\r\n" not in answer:
        piece = connection.recv(65536)
        if not piece:
            raise ConnectionError
        answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    while len(body) < body_length(head):
        body += connection.recv(65536)
    return int(answer[9:12])


def flood(port, number, names, counts):
    os.nice(19)
    asyncio.run(guess_on_all(port, number, names, counts))


async def guess_on_all(port, number, names, counts):
    # Between rounds, too, no address is used again.
    fresh = itertools.count(number << 16)
    await asyncio.gather(*(guess(port, fresh, names, counts) for _ in range(CONNECTIONS)))


async def guess(port, fresh, names, counts):
    while True:
        mine = next(fresh)
        source = f"127.{mine >> 16}.{mine >> 8 & 255}.{mine & 255}"
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
            for number in range(10):
                writer.write(request(names[(mine + number) % len(names)], f"cs_{mine}_{number}"))
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(body_length(head))
                count = counts[int(head[9:12])]
                with count.get_lock():
                    count.value += 1
                await asyncio.sleep(PAUSE)
            writer.close()
        except (OSError, asyncio.IncompleteReadError):
            # A refused connection is an answer too; the next one is made all the same.
            await asyncio.sleep(PAUSE)


def latencies(port, user, secret):
    connection, took = connect(port), []
    began = time.perf_counter()
    for number in range(RATE * SECONDS):
        due = began + number / RATE
        if due > time.perf_counter():
            time.sleep(due - time.perf_counter())
        before = time.perf_counter()
        assert ask(connection, user, secret) == 200
        took.append((time.perf_counter() - before) * 1e6)
    return took


def memory(pid, name):
    """VmRSS: what it has in memory now; VmHWM: what it had at most. In MiB."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    raise ValueError(name)


def busy_since(before):
    """How busy all cores were since that reading, in percent; and a reading."""
    now = [int(field) for field in pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    passed = [a - b for a, b in zip(now, before or [0] * 8)]
    return 100 - 100 * (passed[3] + passed[4]) / max(1, sum(passed)), now


def measured(port, known):
    _, before = busy_since(None)
    took = sorted(latencies(port, *known))
    busy, _ = busy_since(before)
    return took[len(took) // 2], took[len(took) * 99 // 100], busy


def main():
    keyside, rounds = os.path.abspath(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 5
    with tempfile.TemporaryDirectory() as folder:
        measure(keyside, rounds, pathlib.Path(folder))


def measure(keyside, rounds, folder):
    ports = multiprocessing.Queue()
    upstream = multiprocessing.Process(target=serve, args=(ports,), daemon=True)
    upstream.start()
    upstream_port, port, admin = ports.get(), free_port(), free_port()
    config = folder / "keyside.toml"
    config.write_text(
        f'[listen]\naddress = "127.0.0.1:{port}"\nplaintext = true\n[admin]\naddress = "127.0.0.1:{admin}"\n'
        f'[upstream]\nurl = "http://127.0.0.1:{upstream_port}"\n[keys]\nfile = "keys.toml"\n'
        '[limits]\nper_ip = []\nper_key = []\n'
    )
    (folder / "keys.toml").write_text("")
    command = [keyside, "keys", "create", "--config", str(config), "--output", "json", "--owner", "acme", "--scope", "read"]
    subprocess.run([keyside, "owners", "create", "acme", "--config", str(config)], check=True, capture_output=True)
    keys = []
    for number in range(KEYS):
        made = subprocess.run([*command, "--name", f"key {number}"], check=True, capture_output=True, text=True)
        keys.append(json.loads(made.stdout))
    with open(folder / "log", "w") as log:
        sidecar = subprocess.Popen([keyside, "proxy", "--config", str(config)], stdout=log, stderr=log)
    try:
        run(port, sidecar.pid, keys, rounds)
    finally:
        sidecar.terminate()
        sidecar.wait()


def run(port, pid, keys, rounds):
    names = [key["consumer_key"] for key in keys]
    known = keys[0]["consumer_key"], keys[0]["consumer_secret"]
    for _ in range(200):
        try:
            if ask(connect(port), *known) == 200:
                break
        except OSError:
            pass
        time.sleep(0.05)
    latencies(port, *known)
    before = memory(pid, "VmRSS")
    calm, flooded = [], []
    for number in range(rounds):
        calm.append(measured(port, known))
        counts = {status: multiprocessing.Value("q", 0) for status in (401, 429, 503)}
        arguments = [(port, 16 + number * GUESSERS + guesser, names, counts) for guesser in range(GUESSERS)]
        guessers = [multiprocessing.Process(target=flood, args=each, daemon=True) for each in arguments]
        for guesser in guessers:
            guesser.start()
        while counts[401].value == 0:
            time.sleep(0.01)
        flooded.append(measured(port, known))
        for guesser in guessers:
            guesser.kill()
            guesser.join()
        told = ", ".join(f"{status}: {count.value}" for status, count in counts.items())
        print(f"round {number + 1}: calm {line(calm[-1])}; flood {line(flooded[-1])}; guesses {told}", flush=True)
    for name, at in (("p50", 0), ("p99", 1)):
        one, other = (statistics.median(each[at] for each in all_rounds) for all_rounds in (calm, flooded))
        print(f"median {name}: calm {one:.0f} us, flood {other:.0f} us, ratio {other / one:.2f}")
    print(f"memory: {before:.1f} MiB before, {memory(pid, 'VmHWM'):.1f} MiB at most")


def line(round_):
    p50, p99, busy = round_
    return f"p50 {p50:.0f} p99 {p99:.0f} us, cores {busy:.0f} % busy"


if __name__ == "__main__":
    main()
