"""The server behind nginx, over IPv6 and TLS, beside another one, and on its way down."""
import getpass
import socket
import ssl
import subprocess
import threading
import time
from contextlib import contextmanager

import openai
import requests

from . import live
from .harness import Failure, Server, at_once, equal, free_port, need, picture, run, until
from .openai_pictures import client
from .page import is_drawn, type_scene, visit

NGINX = """\
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 128; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    map $http_upgrade $connection_upgrade {{ default upgrade; "" ""; }}
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 32m;
        location /draw/ {{
            proxy_pass http://unix:{socket}:/;
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host $http_host;
            proxy_set_header X-Forwarded-Prefix /draw;
            proxy_buffering off;
            proxy_read_timeout 660s;
        }}
        location /plain/ {{
            proxy_pass http://unix:{socket}:/;
            proxy_set_header Host $http_host;
        }}
    }}
}}
"""


class Proxied:
    """A server's address below a path of nginx, where checks expect a server."""

    def __init__(self, address):
        self.address = address


@contextmanager
def nginx(bench):
    """A server at a Unix socket, and nginx before it, which has it below /draw/."""
    folder = bench.scratch / "nginx"
    folder.mkdir(exist_ok=True)
    path, port, configuration = folder / "server.sock", free_port(), folder / "nginx.conf"
    user = "user root;" if getpass.getuser() == "root" else ""
    configuration.write_text(NGINX.format(user=user, folder=folder, port=port, socket=path))
    with Server(bench, listen=f"unix:{path}") as server:
        equal("the address that is told", server.addresses, [f"unix:{path}"])
        proxy = subprocess.Popen([bench.nginx, "-e", folder / "error.log", "-c", configuration])
        try:
            address = f"http://127.0.0.1:{port}/draw"

            def answers():
                try:
                    return requests.get(address + "/ready", timeout=5).status_code == 200
                except requests.ConnectionError:
                    return False

            until(answers, 10, "nginx does not start")
            yield Proxied(address), server, path
        finally:
            proxy.terminate()
            proxy.wait()


def deployed_behind_nginx(bench):
    """The page, OpenAI's client and the live connection below a path."""
    scene, other = bench.scenes[18], bench.scenes[22]
    with nginx(bench) as (proxied, server, path):
        got = client(proxied).images.generate(prompt=scene["caption"], response_format="url", extra_body={"seed": scene["seed"]}).data[0]
        need(got.url.startswith(proxied.address + "/v1/"), f"the url {got.url} does not lead through the proxy")
        bench.keep("deployed_nginx_url", requests.get(got.url, timeout=10).content, scene)
        events = list(client(proxied).images.generate(prompt=scene["caption"], stream=True, partial_images=2))
        equal("the events through the proxy", [event.type.split(".")[1] for event in events], ["partial_image", "partial_image", "completed"])
        try:
            client(proxied).images.generate(prompt="a circle", extra_headers={"Origin": "http://evil.example"})
        except openai.PermissionDeniedError:
            pass
        else:
            raise Failure("another origin is let through the proxy")
        live.words(bench, "deployed_nginx_live", proxied.address, origin=proxied.address.removesuffix("/draw"))
        with visit(bench, proxied.address) as page:
            type_scene(page, other)
            bench.keep("deployed_nginx_page", is_drawn(page, other), other)
            page.click("#keep")
            page.wait_for_selector("#kept li")
        server.terminate()
        equal("the exit code", server.end(10), 0)
        need(not path.exists(), "the Unix socket is left behind")


def deployed_on_ipv6(bench):
    scene = bench.scenes[29]
    with Server(bench, listen=["[::1]:0", "127.0.0.1:0"]) as server:
        need(server.address.startswith("http://[::1]:"), f"the address is told as {server.address}")
        got = client(server).images.generate(prompt=scene["caption"], response_format="url", extra_body={"seed": scene["seed"]}).data[0]
        need(got.url.startswith(server.address), f"the url is {got.url}")
        bench.keep("deployed_ipv6", requests.get(got.url, timeout=10).content, scene)
        equal("the status at the second address", requests.get(server.addresses[1] + "health", timeout=5).status_code, 200)
        with visit(bench, server.address) as page:
            type_scene(page, scene)
            is_drawn(page, scene)


def deployed_with_tls(bench):
    """A certificate of one's own; a client that does not know it is refused, and plain HTTP is."""
    scene = bench.scenes[11]
    certificate, key = bench.scratch / "cert.pem", bench.scratch / "key.pem"
    run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-keyout", key, "-out", certificate,
         "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
    with Server(bench, "--tls-cert", certificate, "--tls-key", key) as server:
        need(server.address.startswith("https://127.0.0.1:"), f"the address is told as {server.address}")
        trust = ssl.create_default_context(cafile=str(certificate))
        api = client(server, http_client=openai.DefaultHttpxClient(verify=trust))
        got = api.images.generate(prompt=scene["caption"], response_format="url", extra_body={"seed": scene["seed"]}).data[0]
        need(got.url.startswith(server.address), f"the url is {got.url}")
        bench.keep("deployed_tls", requests.get(got.url, timeout=10, verify=str(certificate)).content, scene)
        run(["curl", "--silent", "--fail", "--http2", "--cacert", certificate, server.address + "/health"])
        live.words(bench, "deployed_tls_live", server.address, ssl=trust)
        try:
            client(server).models.list()
        except openai.APIConnectionError:
            pass
        else:
            raise Failure("a client that does not know the certificate is served")
        plain = requests.Session()
        try:
            status = plain.get(server.address.replace("https", "http") + "/health", timeout=5).status_code
            need(status == 400, f"plain HTTP at the TLS port is answered with {status}")
        except requests.ConnectionError:
            pass
        with visit(bench, server.address, ignore_https_errors=True) as page:
            type_scene(page, scene)
            is_drawn(page, scene)
        server.terminate()
        equal("the exit code", server.end(10), 0)
    half = subprocess.run([bench.binary, "serve", *bench.served, "--listen", "127.0.0.1:0", "--tls-cert", certificate], capture_output=True, text=True, timeout=20)
    need(half.returncode != 0 and "--tls-key" in half.stderr, f"a certificate without its key: {half.stderr}")


def deployed_at_a_taken_port(bench):
    port = bench.server.port
    second = subprocess.run([bench.binary, "serve", *bench.served, "--listen", f"127.0.0.1:{port}"], capture_output=True, text=True, timeout=20)
    need(second.returncode != 0, "a second server starts at the same port")
    need(str(port) in second.stderr and "--listen" in second.stderr, f"the message does not name the port and --listen: {second.stderr}")
    equal("what is told where results are", second.stdout, "")
    equal("the status of the first server", bench.server.get("/health").status_code, 200)


def deployed_for_others(bench):
    """An address that other machines reach: a token is made, told, and needed; the host's name does not matter then."""
    with Server(bench, listen="0.0.0.0:0", ready=False) as server:
        token = server.said["token"]
        need(token and len(token) >= 16, f"the token is {token!r}")
        address = f"http://127.0.0.1:{server.port}"
        equal("the status without a token", requests.get(address + "/v1/models", timeout=5).status_code, 401)
        headers = {"Authorization": f"Bearer {token}", "Host": "board.local:8080"}
        equal("the status with it, by another name", requests.get(address + "/v1/models", headers=headers, timeout=5).status_code, 200)
        scene = bench.scenes[0]
        start = {"source": "text", "prompt": scene["caption"], "seed": scene["seed"], "steps": 4, "format": "png"}
        with live.Live(address, start, token=token) as session:
            bench.keep("deployed_for_others", session.drawn()["file"], scene)


def deployed_and_stopped(bench):
    """SIGTERM while 16 clients wait, some of them with streams, and 4 jobs are taken: all get what was promised, and the server ends well."""
    numbers = [0, 7, 8, 9, 10, 11, 13, 15, 17, 18, 20, 22, 24, 25, 29, 30]
    scenes = [bench.scenes[number] for number in numbers]
    with Server(bench) as server:
        api, results = client(server), []

        def draw(number, scene):
            fields = {"prompt": scene["caption"], "extra_body": {"seed": scene["seed"], "steps": 8}}
            if number % 4 == 3:
                return list(api.images.generate(**fields, stream=True, partial_images=1))[-1].b64_json
            return api.images.generate(**fields).data[0].b64_json

        works = [lambda pair=pair: draw(*pair) for pair in enumerate(scenes)]
        jobs = [server.post("/v1/jobs", {"kind": "image", "request": {"prompt": s["caption"], "seed": s["seed"], "steps": 8}}).json()["id"] for s in scenes[:4]]
        waiting = threading.Thread(target=lambda: results.extend(at_once(works)))
        waiting.start()
        until(lambda: server.count("rockshard_jobs_accepted_total") == len(scenes) + len(jobs), 10, "not all requests are taken")
        left = server.jobs()
        need(left["running"] + left["waiting"] > 4, f"most is done before the server is told to stop: {left}")
        server.terminate()
        until(lambda: server.get("/ready").status_code == 503, 5, "/ready still says yes after SIGTERM")
        for scene, job in zip(scenes, jobs):
            until(lambda: server.get(f"/v1/jobs/{job}").json()["status"] == "completed", 30, "a job is not finished while the server drains")
        waiting.join(60)
        equal("the number of clients that were answered", len(results), len(scenes))
        for scene, result in zip(scenes, results):
            need(isinstance(result, str), f"a client got {type(result).__name__}: {result}")
            bench.keep(f"deployed_and_stopped_{scene['seed']}", result, scene)
        # The results of the jobs are kept for who comes for them; after the last one there is nothing to wait for.
        time.sleep(0.5)
        for job, result in zip(jobs, results):
            answer = server.get(f"/v1/jobs/{job}/result")
            equal("the status of a job's result while the server drains", answer.status_code, 200)
            need(answer.json()["data"][0]["b64_json"] == result, "a job's picture is not the one that the same request gave")
            picture(result)
        equal("the exit code", server.end(10), 0)


def deployed_and_not_fetched(bench):
    """Results that nobody comes for hold the server no longer than the time of grace."""
    with Server(bench, "--grace", "2") as server:
        server.post("/v1/jobs", {"kind": "image", "request": {"prompt": "a red circle"}})
        server.settled(10, "the job is not done")
        start = time.monotonic()
        server.terminate()
        equal("the exit code", server.end(8), 0)
        need(time.monotonic() - start < 5, "the server outlasts its time of grace")


def deployed_and_stalled(bench):
    """Clients that are idle, or that stopped in the middle of what they send, do not keep a server that has nothing to do from ending."""
    halves = {"nothing": b"", "half of a head": b"GET /health HT", "half of a body": b"POST /generate HTTP/1.1\r\nHost: localhost\r\n"
              b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"}
    for words, half in halves.items():
        with Server(bench) as server, socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(half)
            time.sleep(0.2)
            server.terminate()
            try:
                equal("the exit code", server.end(4), 0)
            except Failure as failure:
                raise Failure(f"a client has sent {words}: {failure}") from None


def deployed_without_websockets(bench):
    """A proxy that lets no WebSocket through: the page draws with plain requests."""
    scene = bench.scenes[30]
    with nginx(bench) as (proxied, *_):
        with visit(bench, proxied.address.replace("/draw", "/plain"), expected=("WebSocket connection",)) as page:
            type_scene(page, scene)
            bench.keep("deployed_without_websockets", is_drawn(page, scene), scene)


CHECKS = [deployed_behind_nginx, deployed_on_ipv6, deployed_with_tls, deployed_at_a_taken_port, deployed_for_others, deployed_and_stopped,
          deployed_and_not_fetched, deployed_and_stalled, deployed_without_websockets]
