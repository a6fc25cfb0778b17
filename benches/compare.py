#!/usr/bin/env python3
"""Measures Parlor and its peers in one run and prints the table of docs/BENCHMARKS.md.

Each server runs on core 0 with one shard or thread, the generator on core 1. The servers take turns in every round, each
freshly started; figures are medians. Rate limits are raised out of reach for all of them.

    benches/compare.py [--rounds 5] [--seconds 5] [--rows ice-8,idle] [--servers parlor,tokio] [--json FILE]

Build first: cargo build --release --workspace; cargo build --release --manifest-path benches/peers/tokio/Cargo.toml;
npm ci --prefix benches/peers/node.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
LOADGEN = TARGET / "parlor-loadgen"
TOKIO = Path(os.environ.get("PEER_TARGET", ROOT / "benches/peers/tokio/target")) / "release/parlor-peer-tokio"
NODE = ROOT / "benches/peers/node/server.mjs"

# name: command, environment
SERVERS = {
    "parlor": ([TARGET / "parlor", "--shards", "1"], {"IO_DRIVER": "io_uring"}),
    "parlor-epoll": ([TARGET / "parlor", "--shards", "1"], {"IO_DRIVER": "epoll"}),
    "tokio": ([TOKIO], {"WRITES": "each"}),
    "tokio-merged": ([TOKIO], {"WRITES": "merged"}),
    "node": (["node", NODE], {}),
}

# name: what it is, scenario and options, figure in the generator's JSON, whether more is better
ROWS = {
    "ice-8": ("ICE of 222 bytes, 200 pairs, 8 in flight, messages per CPU second",
              ["run", "--scenario", "pairing", "--pairs", "200", "--in-flight", "8", "--payload", "222"],
              "server_messages_per_cpu_s", True),
    "ice-1": ("ICE of 222 bytes, 500 pairs, 1 in flight, messages per CPU second",
              ["run", "--scenario", "pairing", "--pairs", "500", "--in-flight", "1", "--payload", "222"],
              "server_messages_per_cpu_s", True),
    "sdp-1": ("SDP of 2 KB, 200 pairs, 1 in flight, messages per CPU second",
              ["run", "--scenario", "pairing", "--pairs", "200", "--in-flight", "1", "--payload", "sdp"],
              "server_messages_per_cpu_s", True),
    "churn": ("connect, pair, exchange, leave: CPU microseconds per cycle",
              ["run", "--scenario", "churn", "--clients", "50"], "server_cpu_us_per_cycle", False),
    "idle": ("idle clients (14,000): bytes of memory each",
             ["run", "--scenario", "idle", "--clients", "14000"], "server_bytes_per_client", False),
}


def start(name):
    """Starts a server on core 0; returns its process and port."""
    command, extra = SERVERS[name]
    port = "0" if name.startswith("parlor") else str(20000 + os.getpid() % 20000)
    environment = os.environ | extra | {
        "HOST": "127.0.0.1", "PORT": port, "MAX_MSG_PER_SECOND": "1000000000", "RING_ENTRIES": "1024"}
    log = tempfile.TemporaryFile()
    process = subprocess.Popen(["taskset", "-c", "0", *map(str, command)], env=environment, stdout=log, stderr=log)
    for _ in range(200):
        log.seek(0)
        text = re.sub(r"\x1b\[[0-9;]*m", "", log.read().decode())
        found = re.search(r"(?:address=|listening on )[0-9.]+:(\d+)", text)
        if found:
            return process, int(found.group(1))
        if process.poll() is not None:
            sys.exit(f"{name} did not start:\n{text}")
        time.sleep(0.05)
    sys.exit(f"{name} does not listen:\n{text}")


def generate(process, port, options, seconds):
    """Runs the generator on core 1; returns its figures."""
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        command = ["taskset", "-c", "1", str(LOADGEN), *options, "--url", f"ws://127.0.0.1:{port}/ws",
                   "--pid", str(process.pid), "--json", report.name]
        if "idle" not in options:
            command += ["--duration", str(seconds)]
        else:
            command += ["--duration", "2"]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            return {"failed": done.stdout.strip().splitlines()[-1]}
        return json.load(open(report.name))["figures"]


def measure(name, options, seconds):
    process, port = start(name)
    try:
        return generate(process, port, options, seconds)
    finally:
        process.terminate()
        process.wait()


def latency_at_half(servers, rounds, seconds):
    """Latency at half of the saturated rate of the slower of Parlor and the tokio peer, open loop."""
    closed = ["run", "--scenario", "pairing", "--pairs", "200", "--in-flight", "8", "--payload", "222"]
    saturated = {name: measure(name, closed, seconds)["throughput_messages_per_s"] for name in servers}
    rate = int(min(saturated.values()) / 2)
    options = ["run", "--scenario", "pairing", "--pairs", "200", "--payload", "222", "--rate", str(rate)]
    found = {name: [] for name in servers}
    for _ in range(rounds):
        for name in servers:
            found[name].append(measure(name, options, seconds))
    print(f"\nLatency in microseconds at {rate:,} messages per second, open loop, medians of {rounds}:\n")
    print("| | p50 | p99 | p99.9 |\n|---|---|---|---|")
    for name, runs in found.items():
        cells = [f"{statistics.median(run[key] for run in runs):,.0f}"
                 for key in ("latency_p50_us", "latency_p99_us", "latency_p999_us")]
        print(f"| {name} | {' | '.join(cells)} |")
    return {"rate": rate, "runs": found}


def shown(value):
    return "–" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rows", default=",".join([*ROWS, "latency"]))
    parser.add_argument("--servers", default=",".join(SERVERS))
    parser.add_argument("--json")
    options = parser.parse_args()
    servers, rows = options.servers.split(","), options.rows.split(",")
    document = {}
    print(f"| medians of {options.rounds} | " + " | ".join(servers) + " |")
    print("|---" * (len(servers) + 1) + "|")
    for row in rows:
        if row == "latency":
            continue
        title, arguments, figure, _ = ROWS[row]
        found = {name: [] for name in servers}
        for _ in range(options.rounds):
            for name in servers:
                result = measure(name, arguments, options.seconds)
                if figure not in result:
                    print(f"{name} {row}: {result.get('failed', 'no figure')}", file=sys.stderr)
                else:
                    found[name].append(result[figure])
        medians = {name: statistics.median(values) if values else None for name, values in found.items()}
        document[row] = {"medians": medians, "all": found}
        print(f"| {title} | " + " | ".join(shown(medians[name]) for name in servers) + " |", flush=True)
    if "latency" in rows:
        document["latency"] = latency_at_half([s for s in servers if s != "node"], options.rounds, options.seconds)
    if options.json:
        Path(options.json).write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
