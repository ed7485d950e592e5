"""Forms, and images that are bombs, halves, or something else."""
import base64
import io
import struct
import zlib

from PIL import Image

from .documents import at_once, grows_at_most
from .wire import Answer, Row, get, need, post, request, talk

EDIT = "/v1/images/edits"


def png(width, height, bits=8, colour=2, rows=None, extra=b""):
    """A PNG of zeros; `rows` are those that are there, `extra` goes before the data."""
    samples = {0: 1, 2: 3, 3: 1, 6: 4}[colour]
    row = b"\0" + bytes(-(-width * samples * bits // 8))
    packer = zlib.compressobj(1)
    data = b"".join(packer.compress(row) for _ in range(height if rows is None else rows)) + packer.flush()

    def part(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = part(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + extra + part(b"IDAT", data) + part(b"IEND", b"")


def saved(kind, size=(64, 64), mode="RGB", **options):
    out = io.BytesIO()
    Image.new(mode, size).save(out, kind, **options)
    return out.getvalue()


def claimed_jpeg(width, height):
    """A JPEG that says that it is so large."""
    data = bytearray(saved("JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at:at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def claimed_webp(width, height):
    """A WebP (VP8X) that says that it is so large."""
    whole = saved("WEBP", lossless=True)
    head = b"VP8X" + struct.pack("<I", 10) + bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", len(whole) - 8 + len(head)) + b"WEBP" + head + whole[12:]


def form(*parts, boundary=b"b", end=True):
    """A form of (name, bytes), or of parts as they are."""
    body = b""
    for part in parts:
        if isinstance(part, tuple):
            name, value = part
            part = b'Content-Disposition: form-data; name="%s"; filename="f"\r\n\r\n%s' % (name.encode(), value)
        body += b"--" + boundary + b"\r\n" + part + b"\r\n"
    return body + (b"--" + boundary + b"--\r\n" if end else b"")


def sent(body, kind="multipart/form-data; boundary=b", path=EDIT):
    return post(path, body, kind=kind)


def edit(image, *more):
    return sent(form(("prompt", b"x"), ("seed", b"1"), ("image", image), *more))


def chat(url):
    return post("/v1/chat/completions", {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}], "max_tokens": 1})


def held_by_jobs(target):
    """Jobs with sixteen images of 16 megapixels each, which wait: the images are not kept at their size."""
    url = "data:image/png;base64," + base64.b64encode(png(4096, 4096)).decode()
    content = [{"type": "image_url", "image_url": {"url": url}}] * 16 + [{"type": "text", "text": "what"}]
    body = post("/v1/jobs", {"kind": "chat", "request": {"messages": [{"role": "user", "content": content}], "max_tokens": 1}})
    try:
        answer = at_once(3, body, 60)(target)
    finally:
        for job in talk(target, get("/v1/jobs")).json()["data"]:
            talk(target, request("DELETE", f"/v1/jobs/{job['id']}"), 20)
    return answer


def endless_parts(target):
    """10000 parts, and parts of names of a megabyte."""
    return talk(target, sent(form(*[(f"a{n}", b"") for n in range(10000)])), 5)


FETCHED = ("http://127.0.0.1:1/x.png", "https://evil.example/x.png", "file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1:70/_x", "//evil.example/x",
           "http://169.254.169.254/latest/meta-data", "/etc/passwd", "data:image/png,raw", "data:text/html;base64,PGI+", "javascript:alert(1)", "")


def fetches_nothing(target):
    """Addresses of other places, wherever a picture can be named, while somebody listens there."""
    import socket
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(0.2)
        for url in (f"http://127.0.0.1:{trap.getsockname()[1]}/x.png", *FETCHED):
            for data in (chat(url), post("/sdapi/v1/img2img", {"prompt": "x", "init_images": [url]}),
                         post("/v1/jobs", {"kind": "image", "request": {"prompt": "x", "image": url}}), edit(url.encode())):
                answer = talk(target, data)
                need(400 <= (answer.status or 0) < 500, f"{url}: {answer.word}")
        try:
            trap.accept()
        except TimeoutError:
            return Answer([400], [b""], [b""])
    need(False, "the server has fetched an address")


SMALL = png(64, 64)
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
ANIMATED = saved("WEBP", save_all=True, append_images=[Image.new("RGB", (64, 64), (n, 0, 0)) for n in range(50)])
MOVING = saved("PNG", save_all=True, append_images=[Image.new("RGB", (64, 64), (n, 0, 0)) for n in range(50)])
TEXT = b"zTXt" + b"parameters\0\0" + zlib.compress(b"a" * (64 << 20))
TEXT_BOMB = struct.pack(">I", len(TEXT) - 4) + TEXT + struct.pack(">I", zlib.crc32(TEXT))

ROWS = [
    Row("form-without-boundary", sent(form(("prompt", b"x")), "multipart/form-data")),
    Row("form-of-another-boundary", sent(form(("prompt", b"x")), "multipart/form-data; boundary=c")),
    Row("form-of-an-endless-boundary", sent(form(("prompt", b"x")), "multipart/form-data; boundary=" + "b" * 50000)),
    Row("form-of-an-empty-boundary", sent(form(("prompt", b"x")), "multipart/form-data; boundary=")),
    Row("form-without-end", sent(form(("prompt", b"x"), ("image", SMALL), end=False))),
    Row("form-empty", sent(b"")),
    Row("form-of-10000-parts", endless_parts),
    Row("form-part-without-name", sent(form(b"Content-Disposition: form-data\r\n\r\nx"))),
    Row("form-part-without-head", sent(form(b"x"))),
    Row("form-part-of-a-name-of-8-mb", sent(form(("a" * (8 << 20), b"x"), ("prompt", b"x")))),
    Row("form-part-of-1000-heads", sent(form(b"".join(b"X-%d: v\r\n" % n for n in range(1000)) + b'Content-Disposition: form-data; name="prompt"\r\n\r\nx'))),
    Row("form-in-a-form", sent(form(b"Content-Type: multipart/mixed; boundary=c\r\n\r\n--c\r\n\r\nx\r\n--c--"))),
    Row("form-with-a-field-twice", edit(SMALL, ("prompt", b"y"))),
    Row("form-with-a-number-of-8-mb-comes-back-short", edit(SMALL, ("n", b"\x01" * (8 << 20)))),
    Row("form-with-text-not-utf-8", edit(SMALL, ("model", b"\xff\xfe"))),
    Row("form-with-a-picture-for-text", sent(form(("prompt", SMALL), ("image", SMALL)))),
    Row("form-with-two-pictures", edit(SMALL, ("image", SMALL))),
    Row("form-with-17-pictures", edit(SMALL, *[("image[]", SMALL)] * 16)),
    Row("form-where-a-document-belongs", sent(form(("prompt", b"x")), path="/v1/images/generations"), "415"),
    Row("form-that-is-a-document", post(EDIT, {"prompt": "x"}), "415"),
    Row("picture-empty", edit(b"")),
    Row("picture-of-text", edit(b"hello" * 1000)),
    Row("picture-svg", edit(SVG)),
    Row("picture-gif", edit(saved("GIF", mode="P"))),
    Row("picture-tiff", edit(saved("TIFF"))),
    Row("picture-bmp", edit(saved("BMP"))),
    Row("picture-cut-off-png", edit(png(512, 512)[:200])),
    Row("picture-cut-off-jpeg", edit(saved("JPEG", (512, 512))[:700])),
    Row("picture-cut-off-webp", edit(saved("WEBP", (512, 512))[:-20])),
    Row("picture-without-rows", edit(png(512, 512, rows=10))),
    Row("picture-of-no-size", edit(png(0, 0))),
    Row("picture-of-2-to-the-31-png", edit(SMALL[:16] + struct.pack(">II", 1 << 31, 1 << 31) + SMALL[24:])),
    Row("picture-of-20000-squared-png", grows_at_most(100, lambda t: talk(t, edit(png(20000, 20000, bits=1, colour=0))))),
    Row("picture-of-30-megapixels-png", grows_at_most(100, lambda t: talk(t, edit(png(6000, 5000))))),
    Row("picture-of-65000-squared-jpeg", grows_at_most(100, lambda t: talk(t, edit(claimed_jpeg(65000, 65000))))),
    Row("picture-of-16000-squared-webp", grows_at_most(100, lambda t: talk(t, edit(claimed_webp(16000, 16000))))),
    Row("picture-of-16384x1", edit(png(16384, 1)), "200 4xx"),
    Row("picture-of-1x16384", edit(png(1, 16384)), "200 4xx"),
    Row("picture-of-one-pixel", edit(png(1, 1)), "200 4xx"),
    Row("picture-of-transparency-alone", edit(saved("PNG", mode="LA")), "200 4xx"),
    Row("picture-animated-webp", edit(ANIMATED), "200 4xx"),
    Row("picture-animated-png", edit(MOVING), "200 4xx"),
    Row("picture-with-a-page-behind", edit(SMALL + b"<script>alert(1)</script>" * 1000), "200 4xx"),
    Row("picture-with-text-of-64-mb", grows_at_most(100, lambda t: talk(t, edit(png(64, 64, extra=TEXT_BOMB)))), "200 4xx", 5),
    Row("picture-of-a-broken-palette", edit(png(64, 64, colour=3))),
    Row("picture-of-16-bits-and-16-megapixels-12-times", grows_at_most(700, at_once(12, edit(png(4096, 4096, 16, 6)))), "200 4xx", 30),
    Row("pictures-of-jobs-that-wait", grows_at_most(700, held_by_jobs), "202 4xx", 60),
    Row("mask-of-another-size", edit(SMALL, ("mask", png(32, 32, colour=6)))),
    Row("mask-that-is-none", edit(SMALL, ("mask", b"hello"))),
    Row("base64-garbage", post("/sdapi/v1/img2img", {"prompt": "x", "init_images": ["!!!! not base64 \u0000"]})),
    Row("base64-of-garbage", post("/v1/jobs", {"kind": "image", "request": {"prompt": "x", "image": "AAAA" * 1000}})),
    Row("base64-without-its-end", chat("data:image/png;base64,iVBORw0KGgo")),
    Row("data-url-of-20-mb-of-zeros", chat("data:image/png;base64," + "A" * (20 << 20))),
    Row("data-url-of-a-bomb", chat("data:image/png;base64," + base64.b64encode(png(20000, 20000, bits=1, colour=0)).decode())),
    Row("17-images-of-a-message", post("/v1/chat/completions", {"messages": [{"role": "user", "content": [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64," + base64.b64encode(SMALL).decode()}}] * 17}]})),
    Row("addresses-are-not-fetched", fetches_nothing, within=20),
]
