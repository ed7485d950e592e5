#!/usr/bin/env python3
"""Hold `rockshard serve` to its /openapi.json by schemathesis, and its /metrics to Prometheus' naming rules by promtool.

    python tools/check_openapi.py --binary target/release/rockshard --packs DIR [--examples 30]

All checks of schemathesis, in all phases; `tools/openapi/` has its configuration, and the pictures that it sends. It must have made at least 2,000 cases. Afterwards the
server is healthy, its metrics have moved, and promtool (Debian's package prometheus) finds nothing in them. Python packages: tools/server_requirements.txt.
"""
import argparse
import re
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LEAST_CASES = 2000
# Metrics that a run of requests must move.
MOVED = ["rockshard_http_requests_total", "rockshard_http_response_seconds_count", "rockshard_jobs_accepted_total", "rockshard_jobs_finished_total",
         "rockshard_job_wait_seconds_count", "rockshard_job_run_seconds_count", "rockshard_pictures_total", "rockshard_tokens_total",
         "rockshard_core_busy_seconds_total", "rockshard_core_modelled_busy_seconds_total", "rockshard_core_shard_runs_total",
         "rockshard_models_loaded", "rockshard_model_loads_total", "rockshard_device_memory_bytes", "process_resident_memory_bytes"]


def sums(text):
    """The sum over all series of each metric."""
    found = {}
    for name, value in re.findall(r"^(\w+)(?:\{[^}]*\})? (\S+)$", text, re.M):
        found[name] = found.get(name, 0.0) + float(value)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/rockshard")
    parser.add_argument("--packs", type=Path, required=True, help="what `rockshard demo --out` made")
    parser.add_argument("--examples", type=int, default=30)
    arguments = parser.parse_args()
    packs = arguments.packs.absolute()
    command = [arguments.binary.absolute(), "serve", f"tiny={packs}/pack", f"sees={packs}/captioner", "--listen", "127.0.0.1:0", "--quiet"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        address = re.search(r"http://\S+(?=/)", server.stdout.readline())[0]

        def metrics():
            return urllib.request.urlopen(f"{address}/metrics").read().decode()

        before = sums(metrics())
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder) / "log"
            tool = Path(sys.executable).parent / "schemathesis"
            options = ["--checks", "all", "--max-examples", str(arguments.examples), "--continue-on-failure", "--request-timeout", "60", "--no-color", "--seed", "1"]
            with log.open("w") as out:
                run = subprocess.run([tool, "run", f"{address}/openapi.json", *options], cwd=ROOT / "tools/openapi", stdout=out, stderr=out)
            text = log.read_text(errors="replace")
        cases = re.search(r"(\d+) generated", text)
        if run.returncode or not cases:
            sys.exit("".join(line[:300] + "\n" for line in text.splitlines()[-120:]) + "FAILED: schemathesis")
        if int(cases[1]) < LEAST_CASES:
            sys.exit(f"FAILED: only {cases[1]} cases; give more --examples")
        print(f"schemathesis: {cases[1]} cases, nothing found")
        text = metrics()
        after = sums(text)
        still = [name for name in MOVED if after.get(name, 0) <= before.get(name, 0)]
        if still:
            sys.exit(f"FAILED: these did not move: {', '.join(still)}")
        checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
        if checked.returncode or checked.stderr.strip():
            sys.exit(f"FAILED: promtool: {checked.stdout}{checked.stderr}")
        print(f"promtool: {len(after)} metrics, nothing found; {len(MOVED)} of them moved")
        if server.poll() is not None or urllib.request.urlopen(f"{address}/health").status != 200:
            sys.exit("FAILED: the server is not healthy")
    finally:
        server.kill()
        server.wait()


if __name__ == "__main__":
    main()
