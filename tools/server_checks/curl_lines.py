"""curl, as people type it, and what becomes of work whose client goes away."""
import json
import subprocess
import time

from .harness import MOST_STEPS, SIDE, equal, need, picture, run, until

JSON = ["-H", "Content-Type: application/json"]


def curl(server, path, *options):
    """What curl prints for a path of the server."""
    return run(["curl", "--silent", "--show-error", *options, server.address + path])


def answered(server, path, *options):
    """The status and the body of an answer."""
    text = curl(server, path, "--write-out", "\n%{http_code}", *options)
    body, status = text.rsplit("\n", 1)
    return int(status), json.loads(body)


def submit(server, fields):
    return answered(server, "/v1/jobs", *JSON, "--data", json.dumps({"kind": "image", "request": fields}))


def curl_generations(bench):
    scene = bench.scenes[29]
    body = json.dumps({"prompt": scene["caption"], "seed": scene["seed"]})
    status, answer = answered(bench.server, "/v1/images/generations", *JSON, "--data", body)
    equal("the status", status, 200)
    bench.keep("curl_generations", answer["data"][0]["b64_json"], scene)
    status, answer = answered(bench.server, "/v1/images/generations", "--data", body)
    equal("the status of JSON that is not said to be any", status, 415)
    need("application/json" in answer["error"]["message"], f"the message does not name the type: {answer}")
    status, answer = answered(bench.server, "/v1/images/generations", *JSON, "--data", '{"prompt": "a')
    equal("the status of half a body", status, 400)
    status, answer = answered(bench.server, "/v1/images/generations")
    equal("the status of GET", status, 405)


def curl_generate(bench):
    """The minimal API: a PNG, not JSON."""
    scene = bench.scenes[17]
    file, headers = bench.scratch / "a.png", bench.scratch / "headers"
    body = json.dumps({"prompt": scene["caption"], "num_inference_steps": 4, "width": SIDE, "height": SIDE, "seed": scene["seed"], "guidance_scale": 2.0})
    curl(bench.server, "/generate", *JSON, "--data", body, "-o", file, "-D", headers)
    lines = headers.read_text().lower()
    need("content-type: image/png" in lines, f"it is no PNG: {lines}")
    need(f"x-seed: {scene['seed']}\n" in lines, "x-seed is not the seed")
    bench.keep("curl_generate", file.read_bytes(), scene)


def curl_limits_and_health(bench):
    status, limits = answered(bench.server, "/limits")
    resolution = limits["resolution"]
    equal("the status of /limits", status, 200)
    equal("the sizes", (resolution["max_width"], resolution["max_height"], resolution["min_dimension"], resolution["sizes"]), (SIDE, SIDE, SIDE, [f"{SIDE}x{SIDE}"]))
    equal("rocm_available", limits["hardware"]["rocm_available"], False)
    status, health = answered(bench.server, "/health")
    equal("the status of /health", (status, health["status"]), (200, "healthy"))
    equal("the limits in /health", health["resolution_limits"], resolution)
    status, nothing = answered(bench.server, "/no/such/path")
    equal("the status of a path that is not there", (status, nothing["error"]["code"]), (404, "not_found"))


def curl_jobs(bench):
    scene = bench.scenes[24]
    headers = bench.scratch / "headers"
    body = json.dumps({"kind": "image", "request": {"prompt": scene["caption"], "seed": scene["seed"]}})
    status, job = answered(bench.server, "/v1/jobs", *JSON, "--data", body, "-D", headers)
    equal("the status", status, 202)
    need(f"location: jobs/{job['id']}" in headers.read_text().lower(), "Location does not name the job")
    status, before = answered(bench.server, f"/v1/{job['poll_url']}")
    need(before["status"] in ("queued", "running", "completed"), f"the job is {before['status']}")

    def done():
        state = answered(bench.server, f"/v1/{job['poll_url']}")[1]
        return state if state["status"] == "completed" else None

    state = until(done, 20, "the job is not completed")
    status, result = answered(bench.server, f"/v1/{state['result_url']}")
    equal("the status of the result", status, 200)
    equal("the seed of the result", result["data"][0]["seed"], scene["seed"])
    file = bench.scratch / "job.png"
    curl(bench.server, f"/v1/{state['picture_urls'][0]}", "-o", file)
    equal("the job's picture, as a file", picture(file.read_bytes()).tobytes(), picture(result["data"][0]["b64_json"]).tobytes())
    bench.keep("curl_jobs", file.read_bytes(), scene)
    equal("the status of a picture that is not there", answered(bench.server, f"/v1/jobs/{job['id']}/pictures/7")[0], 404)
    equal("the progress of a job that is completed", state["progress"]["done"], state["progress"]["total"])


def curl_deletes_jobs(bench):
    """A job that waits is over at once when it is given up, and one that runs is soon; DELETE forgets it besides."""
    server = bench.server
    jobs = [submit(server, {"prompt": "a red circle", "steps": MOST_STEPS, "n": 1})[1]["id"] for _ in range(7)]
    try:
        until(lambda: server.jobs()["waiting"] == 2, 5, "no two jobs wait behind five")
        status, waiting = answered(server, f"/v1/jobs/{jobs[-1]}")
        equal("the last job", (status, waiting["status"], waiting["position"]), (200, "queued", 1))
        need(waiting["wait_s"] > 0, "the last job waits for nothing")
        equal("the status of its result", answered(server, f"/v1/jobs/{jobs[-1]}/result")[0], 409)
        equal("the jobs that are listed", len(answered(server, "/v1/jobs")[1]["data"]), 7)
        status, gone = answered(server, f"/v1/jobs/{jobs[-1]}", "-X", "DELETE")
        equal("what DELETE gives", (status, gone["status"]), (200, "cancelled"))
        equal("the jobs that wait", server.jobs()["waiting"], 1)
        equal("a second DELETE", answered(server, f"/v1/jobs/{jobs[-1]}", "-X", "DELETE")[0], 404)
        status, gone = answered(server, f"/v1/jobs/{jobs[-2]}/cancel", "-X", "POST")
        equal("what cancel gives", (status, gone["status"]), (200, "cancelled"))
        equal("a second cancel", answered(server, f"/v1/jobs/{jobs[-2]}/cancel", "-X", "POST")[0], 409)
        equal("the state of a job that was cancelled", answered(server, f"/v1/jobs/{jobs[-2]}")[1]["status"], "cancelled")
    finally:
        ends = [answered(server, f"/v1/jobs/{job}", "-X", "DELETE") for job in jobs[:5]]
    for status, gone in ends:
        equal("what DELETE of a running job gives", (status, gone["status"]), (200, "cancelled"))
    server.settled(3, "jobs that were given up still run")


def curl_goes_away(bench):
    server = bench.server
    body = json.dumps({"prompt": "a red circle", "steps": MOST_STEPS, "n": 10})
    command = ["curl", "--silent", "-o", "/dev/null", *JSON, "--data", body, server.address + "/v1/images/generations"]
    client = subprocess.Popen(command)
    until(lambda: server.jobs()["running"] == 1, 5, "the request does not run")
    client.kill()
    client.wait()
    start = time.monotonic()
    server.settled(2, "a request whose client went away is still drawn")
    need(time.monotonic() - start < 2, "it took long")


def curl_cores(bench):
    """/v1/cores tells how busy the cores are: as much as /metrics counts, and without holes between two looks of the page."""
    server = bench.server
    server.settled(5, "something runs still")

    def busy():
        return [server.count(f'rockshard_core_busy_seconds_total{{core="{core}"}}') for core in range(3)], time.monotonic()

    job = submit(server, {"prompt": "a red circle", "steps": MOST_STEPS, "n": 10})[1]["id"]
    try:
        time.sleep(0.3)
        before, start = busy()
        time.sleep(1.2)
        state = answered(server, "/v1/cores")[1]
        after, end = busy()
    finally:
        answered(server, f"/v1/jobs/{job}", "-X", "DELETE")
    counted = [min(1, (b - a) / (end - start)) for a, b in zip(before, after)]
    told = [core["busy"] for core in state["cores"]]
    need(all(abs(a - b) < 0.25 for a, b in zip(counted, told)), f"shares of a second told are {told}; by the counters they are {counted}")
    span = (state["now_us"] - min(run["start_us"] for run in state["recent"])) / 1e6
    need(span > 0.5, f"what ran is told of the last {span:.2f} s, and the page looks every half second: its timeline has holes")


CHECKS = [curl_generations, curl_generate, curl_limits_and_health, curl_jobs, curl_deletes_jobs, curl_goes_away, curl_cores]
