#!/usr/bin/env python3
"""Drive `rockshard serve` with the programs that people have: OpenAI's client, curl, Open WebUI's calls, A1111's scripts, Chromium, nginx.

    python tools/check_server.py --binary target/release/rockshard --packs DIR --out DIR [CHECK...]

The program is started as users start it, with the packs that `rockshard demo --out DIR` makes: one that draws, one that describes. Each check prints `ok NAME` or
`FAILED NAME: why`; what failed is tried once more, and the exit code is 1 if something failed again. Pictures that were asked for are put into OUT/served, each beside the scene that it is to show, for the
shape checker; screenshots of the page into OUT. CHECK names some of the checks, by their beginning. Python packages: tools/server_requirements.txt.
"""
import argparse
import sys
import time
from pathlib import Path

from server_checks import curl_lines, deployment, documented, live, metadata, metrics, openai_errors, openai_pictures, openai_words, page, web_ui
from server_checks.harness import Bench, Failure, Server, need, scratch_folder, until

ROOT = Path(__file__).resolve().parent.parent
MODULES = (openai_pictures, openai_words, openai_errors, curl_lines, web_ui, metadata, live, page, documented, metrics, deployment)


def logs_are_quiet(bench):
    """No server met a defect of its own."""
    for log in bench.logs:
        text = log.read_text()
        if "panicked" in text:
            raise Failure(f"a server panicked: {text[text.index('panicked') - 80:][:400]}")


def nothing_is_left(bench):
    """Of all that was asked for and given up, nothing is drawn any more."""
    bench.server.settled(5, "jobs still run or wait")
    until(lambda: bench.server.get("/v1/cores").json()["live"] == {"active": 0, "waiting": 0}, 5, "live sessions are left")
    need(bench.server.process.poll() is None, "the server has ended")


def execute(check, bench):
    """Whether a check is fulfilled."""
    start = time.monotonic()
    try:
        check(bench)
    except Exception as error:  # whatever a client meets is a failure of the check
        kind = "" if isinstance(error, Failure) else f"{type(error).__name__}: "
        why = " ".join(str(error).split())[:600]
        print(f"FAILED {check.__name__}: {kind}{why}", flush=True)
        return False
    print(f"ok {check.__name__} ({time.monotonic() - start:.1f} s)", flush=True)
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, default=ROOT / "target/release/rockshard")
    parser.add_argument("--packs", type=Path, required=True, help="what `rockshard demo --out` made")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scenes", type=Path, default=ROOT / "shards/tiny-lcm/held_out.json")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--nginx", default="/usr/sbin/nginx")
    parser.add_argument("checks", nargs="*", metavar="CHECK", help="beginnings of names; none: all")
    arguments = parser.parse_args()
    arguments.out = arguments.out.absolute()
    checks = [check for module in MODULES for check in module.CHECKS] + [nothing_is_left, logs_are_quiet]
    if arguments.checks:
        checks = [check for check in checks if check.__name__.startswith(tuple(arguments.checks))]
        if not checks:
            sys.exit("no check has such a name")
    start = time.monotonic()
    with scratch_folder() as scratch:
        bench = Bench(arguments, Path(scratch))
        with Server(bench) as bench.server:
            missed = [check for check in checks if not execute(check, bench)]
            # Some checks wait for seconds at most, which a busy machine may miss: once more.
            again = [check for check in missed if not execute(check, bench)]
            failed = len(again)
            page.close()
    print(f"{len(checks)} checks, {len(missed)} failed at first, {failed} once more, {time.monotonic() - start:.0f} s")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
