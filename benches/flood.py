#!/usr/bin/env python3
"""flood.py KEYSIDE [ROUNDS]: what a flood of wrong secrets does to callers who are verified.

Starts the given release binary in front of an upstream of its own, with ten argon2id keys. One verified caller asks
200 times a second; in turns, nobody else is there (calm), or 32 addresses guess at the secrets of all ten keys as fast
as they are answered (flood). Prints the median and the 99th percentile of the verified caller's latency, in
microseconds, for each, their ratio, and the resident memory before and at its highest. Needs Python alone. The
guessers run at low priority: on few cores it is Keyside's work that is measured, and not theirs.
"""
import base64
import http.server
import json
import multiprocessing
import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

GUESSERS, KEYS, RATE, SECONDS = 32, 10, 200, 5


class Upstream(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        # In one piece: in two, the second would wait for the first to be acknowledged.
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    def log_message(self, *_):
        pass


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def connect(port, source="127.0.0.1"):
    connection = socket.create_connection(("127.0.0.1", port), source_address=(source, 0))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def ask(connection, user, secret):
    credential = base64.b64encode(f"{user}:{secret}".encode()).decode()
    connection.sendall(f"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Basic {credential}\r\n\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        piece = connection.recv(65536)
        if not piece:
            raise ConnectionError
        answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
    while len(body) < length:
        body += connection.recv(65536)
    return int(answer[9:12])


def guess(port, number, names, stop, counts):
    os.nice(19)
    connection, guesses = None, 0
    while not stop.is_set():
        try:
            if connection is None:
                connection = connect(port, f"127.9.{guesses // 50 % 250}.{number + 1}")
            status = ask(connection, names[guesses % len(names)], f"cs_{number}_{guesses}")
            with counts[status].get_lock():
                counts[status].value += 1
        except (OSError, ValueError):
            connection = None
        guesses += 1
        if guesses % 50 == 0:
            # Another address, so that no limit per address ends the flood.
            connection = None


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


def resident(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def main():
    keyside, rounds = os.path.abspath(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 5
    folder = pathlib.Path(tempfile.mkdtemp())
    upstream = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    port, admin = free_port(), free_port()
    config = folder / "keyside.toml"
    config.write_text(
        f'[listen]\naddress = "127.0.0.1:{port}"\nplaintext = true\n[admin]\naddress = "127.0.0.1:{admin}"\n'
        f'[upstream]\nurl = "http://127.0.0.1:{upstream.server_address[1]}"\n[keys]\nfile = "keys.toml"\n'
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
    before, highest = resident(pid), 0.0
    table = {"calm": [], "flood": []}
    for number in range(rounds):
        calm = latencies(port, *known)
        stop = multiprocessing.Event()
        counts = {status: multiprocessing.Value("q", 0) for status in (401, 429, 503)}
        flood = [multiprocessing.Process(target=guess, args=(port, n, names, stop, counts)) for n in range(GUESSERS)]
        for guesser in flood:
            guesser.start()
        while sum(count.value for count in counts.values()) == 0:
            time.sleep(0.01)
        flooded = latencies(port, *known)
        highest = max(highest, resident(pid))
        stop.set()
        for guesser in flood:
            guesser.join()
        for name, took in (("calm", calm), ("flood", flooded)):
            took.sort()
            table[name].append((took[len(took) // 2], took[len(took) * 99 // 100]))
        told = ", ".join(f"{status}: {count.value}" for status, count in counts.items())
        print(f"round {number + 1}: calm p50 {table['calm'][-1][0]:.0f} p99 {table['calm'][-1][1]:.0f} us;"
              f" flood p50 {table['flood'][-1][0]:.0f} p99 {table['flood'][-1][1]:.0f} us; guesses {told}")
    calm = statistics.median(p99 for _, p99 in table["calm"])
    flooded = statistics.median(p99 for _, p99 in table["flood"])
    print(f"median p99: calm {calm:.0f} us, flood {flooded:.0f} us, ratio {flooded / calm:.2f};"
          f" memory {before:.1f} MiB before, {highest:.1f} MiB at most")


if __name__ == "__main__":
    main()
