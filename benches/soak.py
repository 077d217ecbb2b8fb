#!/usr/bin/env python3
"""soak.py KEYSIDE [MINUTES]: hours of bad days in a row, and what they leave behind.

Starts the given binary over TLS in front of an upstream of its own, and mixes for so many minutes (30 if not said):
callers that are served, refused for every reason there is, mangled, cut off and over their limits, from thousands of
addresses; an upstream that is slow, hangs up, cuts its answers and answers early; tunnels; keys that are minted, used
and revoked, each of which must be refused from the moment at which the command has returned; reloads of good and of
broken configurations, and new certificates. HTTP/2 comes from h2load, where that is installed.

Every few seconds it takes resident memory, descriptors, threads, the sizes of tables and of the state folder. At the
end it fits a line through each, over all but the first quarter, and prints it in units an hour, with how far that is
from nothing. Exits with 1 when an answer was none of those that its request may get, when a revoked key passed, or when
memory or descriptors grew: when the line rises by more than a twentieth over the time of the fit, and by more than three
of its standard errors (not judged in less than 5 minutes, in which tables fill). Needs Python and openssl, on Linux.
"""
import asyncio
import base64
import collections
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request

CALLERS, PAUSE, SAMPLE = 24, 0.04, 5
OVERSIZE = b"x" * 70_000


# The upstream: what it does is in the path.


async def upstream(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            line = head.split(b"\r\n", 1)[0].decode()
            fields = head.lower()
            path = line.split(" ")[1].split("?")[0]
            if path == "/early":
                writer.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                break
            if path == "/socket" and b"upgrade: websocket" in fields:
                writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
                while data := await reader.read(65536):
                    writer.write(data)
                break
            await body(reader, fields)
            if path == "/slow":
                await asyncio.sleep(random.uniform(0.05, 0.5))
            if path == "/hang-up":
                break
            if path == "/cut":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this")
                break
            if path == "/garbage":
                writer.write(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
                break
            size = {"/big": 1 << 20, "/huge": 16 << 20}.get(path, 2)
            if path == "/chunked":
                writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"5\r\nhello\r\n" * 50 + b"0\r\n\r\n")
            else:
                content = b"" if line.startswith("HEAD ") else b"k" * size
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + content)
            await writer.drain()
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        pass
    finally:
        writer.close()


async def body(reader, fields):
    """Reads a request's body to its end."""
    if b"transfer-encoding: chunked" in fields:
        while size := int((await reader.readuntil(b"\r\n")).strip(), 16):
            await reader.readexactly(size + 2)
        await reader.readuntil(b"\r\n")
    elif b"content-length:" in fields:
        await reader.readexactly(length_of(fields))


def length_of(head):
    lines = head.lower().split(b"\r\n")
    return next((int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:")), 0)


# What callers ask: a name, how often, the bytes, and the statuses that may answer it (None: no answer, or none whole).


def basic(user, secret):
    return "Authorization: Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()


def plain(line, *fields, content=b""):
    return "\r\n".join([f"{line} HTTP/1.1", "Host: localhost", *fields, "", ""]).encode() + content


def requests(keys):
    reader, writer, tiny, elsewhere = (basic(*keys[name]) for name in ("reader", "writer", "tiny", "elsewhere"))
    wrong = lambda: basic(keys["reader"][0], f"cs_{random.getrandbits(160):040x}")
    unknown = lambda: basic(f"ck_{random.getrandbits(160):040x}", f"cs_{random.getrandbits(160):040x}")
    chunks = b"3e8\r\n" + b"c" * 1000 + b"\r\n"
    ok, refused, bad = {200}, {401, 429, 503}, {400, None}
    return [
        ("read", 40, lambda: plain("GET /ok", reader), ok),
        ("head", 2, lambda: plain("HEAD /ok", reader), ok),
        ("write", 10, lambda: plain("POST /ok", writer, "Content-Length: 4", content=b"body"), ok),
        ("chunked upload", 3, lambda: plain("POST /ok", writer, "Transfer-Encoding: chunked", content=chunks * 40 + b"0\r\n\r\n"), ok),
        ("expect", 2, lambda: plain("POST /ok", writer, "Expect: 100-continue", "Content-Length: 4", content=b"body"), ok),
        ("chunked answer", 3, lambda: plain("GET /chunked", reader), ok),
        ("big answer", 3, lambda: plain("GET /big", reader), ok),
        ("slow", 4, lambda: plain("GET /slow", reader), ok),
        ("hang-up", 2, lambda: plain("GET /hang-up", reader), {502}),
        ("cut answer", 2, lambda: plain("GET /cut", reader), {None}),
        ("garbage", 2, lambda: plain("GET /garbage", reader), {502}),
        ("early answer", 2, lambda: plain("POST /early", writer, "Content-Length: 70000", content=OVERSIZE), {413, 502, None}),
        ("over its limit", 4, lambda: plain("GET /ok", tiny), {200, 429}),
        ("from elsewhere", 2, lambda: plain("GET /ok", elsewhere), {403}),
        ("not its scope", 3, lambda: plain("DELETE /ok", reader), {403}),
        ("no key", 3, lambda: plain("GET /ok"), {401}),
        ("wrong secret", 4, lambda: plain("GET /ok", wrong()), refused),
        ("unknown key", 4, lambda: plain("GET /ok", unknown()), refused),
        ("two keys", 2, lambda: plain("GET /ok", reader, "Authorization: Bearer ck_live_x"), {400}),
        ("two readings", 2, lambda: plain("GET /a/%2e%2e/ok", reader), {400}),
        ("two lengths", 2, lambda: plain("POST /ok", writer, "Content-Length: 4", "Content-Length: 5", content=b"body!"), bad),
        ("bad chunk", 2, lambda: plain("POST /ok", writer, "Transfer-Encoding: chunked", content=b"zz\r\n\r\n"), {400}),
        ("not HTTP", 2, lambda: os.urandom(200), {400, 431, None}),
        ("too large", 1, lambda: plain("POST /ok", writer, "Content-Length: 99999999"), {413}),
        ("large head", 1, lambda: plain("GET /ok", reader, f"X-Large: {'x' * 40000}"), {431, None}),
    ]


ABANDONED = ["in the head", "in the body", "in the answer", "in a tunnel", "in the handshake"]


class Soak:
    def __init__(self, keyside, folder, minutes):
        self.keyside, self.folder, self.minutes = keyside, folder, minutes
        self.config = folder / "keyside.toml"
        self.port, self.admin = free_port(), free_port()
        self.counts = collections.Counter()
        self.wrong = collections.Counter()
        self.samples = []
        self.keys = {}
        self.revocations = self.questions = 0
        self.until = 0
        self.tls = ssl.create_default_context()
        self.tls.check_hostname = False
        self.tls.verify_mode = ssl.CERT_NONE

    # The sidecar.

    def prepare(self, upstream_port):
        self.certify()
        self.config.write_text(
            f'[listen]\naddress = "127.0.0.1:{self.port}"\nmax_body = "8MiB"\n'
            '[listen.tls]\ncertificate = "tls.crt"\nprivate_key = "tls.key"\n'
            f'[admin]\naddress = "127.0.0.1:{self.admin}"\n'
            f'[upstream]\nurl = "http://127.0.0.1:{upstream_port}"\n'
            '[keys]\nfile = "keys.toml"\nstate = "state/"\n'
            '[limits]\nper_key = ["100000/1m"]\nfailures_per_ip = ["5/1m"]\n'
            '[[route]]\npath = "/socket"\nupgrade = ["websocket"]\n[[route]]\npath = "/**"\n'
        )
        # The sidecar's own will be broken at times, and a command that reads it then says so.
        shutil.copy(self.config, self.folder / "commands.toml")
        (self.folder / "keys.toml").write_text("")
        self.command("owners", "create", "acme")
        for name, more in {
            "reader": ["--scope", "read"],
            "writer": ["--scope", "read_write"],
            "tiny": ["--scope", "read", "--limit", "10/1m"],
            "elsewhere": ["--scope", "read", "--allow-ip", "192.0.2.1"],
        }.items():
            self.keys[name] = self.mint(name, *more)

    def command(self, *arguments):
        done = subprocess.run(
            [self.keyside, *arguments, "--config", str(self.folder / "commands.toml")], capture_output=True, text=True
        )
        if done.returncode:
            raise RuntimeError(f"{arguments}: {done.returncode}: {done.stderr}")
        return done.stdout

    def mint(self, name, *more):
        made = json.loads(self.command("keys", "create", "--output", "json", "--owner", "acme", "--name", name, *more))
        return made["consumer_key"], made["consumer_secret"]

    def certify(self):
        new = ["-keyout", f"{self.folder}/new.key", "-out", f"{self.folder}/new.crt"]
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
        subprocess.run(["openssl", "req", "-x509", *curve, "-subj", "/CN=localhost", *new], check=True, capture_output=True)
        for end in ("key", "crt"):
            os.replace(self.folder / f"new.{end}", self.folder / f"tls.{end}")

    # The load.

    def going_on(self):
        return time.monotonic() < self.until

    async def connect(self, source=None):
        # Thousands of addresses, so that the tables of those are full of them.
        source = source or f"127.{random.randrange(1, 21)}.{random.randrange(256)}.1"
        return await asyncio.open_connection("127.0.0.1", self.port, ssl=self.tls, local_addr=(source, 0))

    async def answer(self, reader, head):
        """The status and whether the connection goes on; None for no whole answer."""
        try:
            while True:
                answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
                status = int(answer[9:12])
                if status >= 200:
                    break
            lower = answer.lower()
            if head.startswith(b"HEAD "):
                pass
            elif b"transfer-encoding: chunked" in lower:
                await body(reader, lower)
            else:
                await reader.readexactly(length_of(answer))
            return status, b"connection: close" not in lower
        except (OSError, asyncio.IncompleteReadError, ValueError):
            return None, False

    async def caller(self, table):
        connection = None
        weights = [weight for _, weight, _, _ in table]
        while self.going_on():
            await asyncio.sleep(random.uniform(0, 2 * PAUSE))
            if random.random() < 0.04:
                await self.abandon()
                continue
            (name, _, make, allowed), = random.choices(table, weights)
            try:
                if connection is None or random.random() < 0.1:
                    if connection:
                        connection[1].close()
                    connection = await self.connect()
                reader, writer = connection
                bytes_ = make()
                writer.write(bytes_)
                status, goes_on = await self.answer(reader, bytes_)
                if status is None and None not in allowed and self.counts[name, "lost"] < 1 + self.counts[name, 200] // 1000:
                    # A kept connection may have been closed for its age or its failures: that is no answer, but no fault.
                    self.counts[name, "lost"] += 1
                elif status in allowed:
                    self.counts[name, status] += 1
                else:
                    self.wrong[name, status] += 1
                if not goes_on or status is None or (name in ("two lengths", "not HTTP", "bad chunk")):
                    writer.close()
                    connection = None
            except OSError as error:
                self.counts["connection", type(error).__name__] += 1
                connection = None

    async def abandon(self):
        """A caller that goes away where it hurts."""
        where = random.choice(ABANDONED)
        reader, writer = None, None
        try:
            if where == "in the handshake":
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.write(b"\x16\x03\x01\x02\x00\x01\x00")
            else:
                reader, writer = await self.connect()
            auth = basic(*self.keys["writer"])
            if where == "in the head":
                writer.write(plain("GET /ok", auth)[:-10])
            elif where == "in the body":
                writer.write(plain("POST /ok", auth, "Content-Length: 100000", content=b"b" * 5000))
            elif where == "in the answer":
                writer.write(plain("GET /huge", auth))
                await reader.read(10000)
            elif where == "in a tunnel":
                writer.write(plain("GET /socket", auth, "Connection: Upgrade", "Upgrade: websocket"))
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"there and back")
                await reader.readexactly(14)
            await asyncio.sleep(random.uniform(0, 2))
            writer.transport.abort()
            self.counts["abandoned", where] += 1
        except (OSError, asyncio.IncompleteReadError) as error:
            self.counts["abandoned", type(error).__name__] += 1
        finally:
            if writer:
                writer.close()

    async def churn(self):
        """Mints a key, uses it, revokes it, and asks once more."""
        number = 0
        while self.going_on():
            number += 1
            name = f"churn {number}"
            pair = await asyncio.to_thread(self.mint, name, "--scope", "read")
            request = plain("GET /ok", basic(*pair))
            status = None
            for _ in range(100):
                if (status := await self.one(request)) == 200:
                    break
                await asyncio.sleep(0.05)
            if status != 200:
                self.wrong["a new key", status] += 1
            await asyncio.to_thread(self.command, "keys", "revoke", pair[0], "--wait")
            if (status := await self.one(request)) != 401:
                self.wrong["a revoked key", status] += 1
            self.revocations += 1
            await asyncio.to_thread(self.command, "keys", "delete", pair[0], "--yes")
            await asyncio.sleep(1)

    async def one(self, request):
        try:
            # From an address that was not used before: it must get the word on its key, and not one on its failures.
            self.questions += 1
            source = f"127.{100 + (self.questions >> 16)}.{self.questions >> 8 & 255}.{self.questions & 255}"
            reader, writer = await self.connect(source)
            writer.write(request)
            status, _ = await self.answer(reader, request)
            writer.close()
            return status
        except OSError:
            return None

    async def reload(self):
        good = self.config.read_text()
        number = 0
        while self.going_on():
            await asyncio.sleep(5)
            number += 1
            if number % 3 == 0:
                self.config.write_text(good + '\n[listen]\nnonsense = "yes"\n')
                self.sidecar.send_signal(signal.SIGHUP)
                await asyncio.sleep(0.5)
                self.config.write_text(good)
            if number % 6 == 0:
                await asyncio.to_thread(self.certify)
            self.sidecar.send_signal(signal.SIGHUP)

    async def http2(self):
        if not shutil.which("h2load"):
            print("h2load is not installed: no HTTP/2", flush=True)
            return
        auth = basic(*self.keys["reader"]).split(": ", 1)[1]
        while self.going_on():
            process = await asyncio.create_subprocess_exec(
                "nice", "h2load", "-n", "500", "-c", "4", "-m", "20", "-H", f"authorization: {auth}",
                f"https://localhost:{self.port}/ok", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )
            said, _ = await process.communicate()
            line = next((line for line in said.decode().splitlines() if line.startswith("status codes:")), "")
            if line.startswith("status codes: 500 2xx"):
                self.counts["http/2", 200] += 500
            else:
                self.wrong["http/2", line] += 1
            await asyncio.sleep(5)

    # What is left of it.

    def sample(self):
        proc = pathlib.Path(f"/proc/{self.sidecar.pid}")
        status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
        metrics = urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/metrics", timeout=30).read().decode()

        def total(name):
            lines = (line for line in metrics.splitlines() if line.startswith((name + "{", name + " ")))
            return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

        return {
            "resident KiB": int(status["VmRSS"].split()[0]),
            "descriptors": len(os.listdir(proc / "fd")),
            "threads": int(status["Threads"]),
            "connections": total("keyside_connections"),
            "limiter entries": total("keyside_limiter_entries"),
            "keys": total("keyside_keys"),
            "series": sum(not line.startswith("#") for line in metrics.splitlines()),
            "state bytes": sum(size(path) for path in (self.folder / "state").iterdir()),
            "log lines dropped": total("keyside_log_lines_dropped_total"),
        }

    async def watch(self):
        began = time.monotonic()
        while self.going_on():
            self.samples.append((time.monotonic() - began, await asyncio.to_thread(self.sample)))
            if len(self.samples) % 12 == 1:
                passed, sample = self.samples[-1]
                said = ", ".join(f"{name} {value:.0f}" for name, value in sample.items())
                print(f"{passed:6.0f} s: {sum(self.counts.values())} answers; {said}", flush=True)
            await asyncio.sleep(SAMPLE)

    async def run(self):
        server = await asyncio.start_server(upstream, "127.0.0.1", 0)
        self.prepare(server.sockets[0].getsockname()[1])
        with open(self.folder / "log", "wb") as log:
            # Its log is read and thrown away: on disk it would be the largest thing of the run.
            tail = subprocess.Popen(["tail", "-c", "200000"], stdin=subprocess.PIPE, stdout=log)
            self.sidecar = subprocess.Popen(
                [self.keyside, "proxy", "--config", str(self.config)], stdout=tail.stdin, stderr=tail.stdin
            )
            try:
                while await self.one(plain("GET /ok", basic(*self.keys["reader"]))) != 200:
                    if self.sidecar.poll() is not None:
                        raise RuntimeError("the sidecar has ended")
                    await asyncio.sleep(0.1)
                calm = self.sample()
                self.until = time.monotonic() + 60 * self.minutes
                table = requests(self.keys)
                callers = [self.caller(table) for _ in range(CALLERS)]
                await asyncio.gather(*callers, self.churn(), self.reload(), self.http2(), self.watch())
                # What was left open by those who went away has had its time.
                for _ in range(120):
                    after = self.sample()
                    if after["connections"] == 0:
                        break
                    await asyncio.sleep(1)
                return self.report(calm, after)
            finally:
                self.sidecar.send_signal(signal.SIGTERM)
                code = await asyncio.to_thread(self.sidecar.wait)
                tail.stdin.close()
                tail.wait()
                print(f"the sidecar ended with {code}")

    def report(self, calm, after):
        print("\nanswers:")
        for (name, status), count in sorted(self.counts.items(), key=str):
            print(f"  {name}: {status} x {count}")
        print(f"revocations: {self.revocations}, each refused at once")
        samples = [sample for sample in self.samples if sample[0] > self.samples[-1][0] / 4]
        grew = []
        print(f"\n{'':18} {'calm':>10} {'mean':>10} {'an hour':>12} {'+- error':>12} {'afterwards':>10}")
        for name in calm:
            mean, slope, error = fit([(passed, sample[name]) for passed, sample in samples])
            print(f"{name:18} {calm[name]:10.0f} {mean:10.0f} {slope * 3600:12.1f} {error * 3600:12.1f} {after[name]:10.0f}")
            span = samples[-1][0] - samples[0][0]
            # In a short run all that is seen is how the tables fill.
            judged = self.minutes >= 5 and name in ("resident KiB", "descriptors", "threads")
            if judged and slope * span > mean / 20 and slope > 3 * error:
                grew.append(name)
        for (name, status), count in self.wrong.items():
            print(f"WRONG: {name}: {status} x {count}")
        for name in grew:
            print(f"GREW: {name}")
        return not self.wrong and not grew


def size(path):
    try:
        return path.stat().st_size
    except FileNotFoundError:
        # A file that is being replaced.
        return 0


def fit(points):
    """Mean, slope a second and its standard error, by least squares."""
    count = len(points)
    mean_x, mean_y = (sum(point[axis] for point in points) / count for axis in (0, 1))
    spread = sum((x - mean_x) ** 2 for x, _ in points) or 1
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    rest = sum((y - mean_y - slope * (x - mean_x)) ** 2 for x, y in points)
    return mean_y, slope, (rest / max(1, count - 2) / spread) ** 0.5


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def main():
    keyside, minutes = os.path.abspath(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 30
    with tempfile.TemporaryDirectory(prefix="keyside-soak-") as folder:
        good = asyncio.run(Soak(keyside, pathlib.Path(folder), minutes).run())
    sys.exit(0 if good else 1)


main()
