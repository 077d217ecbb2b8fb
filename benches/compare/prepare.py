#!/usr/bin/env python3
"""Makes Keyside's configuration for a comparison with other proxies that do the same work.

prepare.py KEYS.csv FOLDER UPSTREAM HTTP_PORT TLS_PORT CERT.pem KEY.pem

KEYS.csv holds consumer_key,consumer_secret,owner,scope. Two configurations are written, for plaintext and for TLS, with
everything on that is on by default (access log, metrics, timeouts, limits); only the limits themselves are set so high
that a benchmark does not reach them.
"""
import csv, hashlib, pathlib, sys

keys, folder, upstream, http, tls, cert, key = sys.argv[1:8]
folder = pathlib.Path(folder)
folder.mkdir(parents=True, exist_ok=True)
rows = list(csv.DictReader(open(keys)))
owners = sorted({row["owner"] for row in rows})
with open(folder / "keys.toml", "w") as out:
    for owner in owners:
        out.write(f'[[owner]]\nid = "{owner}"\n\n')
    for number, row in enumerate(rows):
        digest = hashlib.sha256(row["consumer_secret"].encode()).hexdigest()
        out.write(
            f'[[key]]\nid = "key_{number:06d}"\nname = "bench {number}"\nkind = "pair"\nprefix = "{row["consumer_key"]}"\n'
            f'hash = "$sha256${digest}"\nowner = "{row["owner"]}"\nscopes = ["{row["scope"]}"]\n\n'
        )
    out.write(f"[end]\nowners = {len(owners)}\nkeys = {len(rows)}\n")
(folder / "keys.toml").chmod(0o600)
for name, listen, admin in (
    ("plain", f'address = "127.0.0.1:{http}"\nplaintext = true', int(http) + 5),
    ("tls", f'address = "127.0.0.1:{tls}"\n[listen.tls]\ncertificate = "{cert}"\nprivate_key = "{key}"', int(tls) + 5),
):
    (folder / f"{name}.toml").write_text(
        f"""[listen]
{listen}
[admin]
address = "127.0.0.1:{admin}"
[shutdown]
delay = "0s"
grace = "1s"
[upstream]
url = "http://{upstream}"
[keys]
file = "keys.toml"
state = "state-{name}"
[limits]
per_ip = ["2000000000/1m"]
per_key = ["2000000000/1m"]
failures_per_ip = ["2000000000/1m"]
"""
    )
