"""The page in Chromium, as a person uses it."""
import base64
import time
from contextlib import contextmanager

from playwright.sync_api import sync_playwright

from .harness import MOST_STEPS, SIDE, Server, equal, need, picture, until

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--use-fake-device-for-media-stream",
         "--use-fake-ui-for-media-stream"]
# What the policy forbids is told to the console, from the first script on.
WATCH = "addEventListener('securitypolicyviolation', (e) => console.error(`policy: ${e.violatedDirective} ${e.blockedURI}`));"
SHOWN = "(id) => { const i = document.getElementById(id); const c = document.createElement('canvas'); c.width = i.naturalWidth; c.height = i.naturalHeight; " \
        "c.getContext('2d').drawImage(i, 0, 0); return c.toDataURL('image/png').split(',')[1]; }"
KEPT = """() => new Promise((resolve, reject) => {
  const asked = indexedDB.open('rockshard', 1);
  asked.onerror = reject;
  asked.onsuccess = () => {
    const all = asked.result.transaction('pictures').objectStore('pictures').getAll();
    all.onerror = reject;
    all.onsuccess = () => Promise.all(all.result.map(async ({ blob, params }) => {
      const bytes = new Uint8Array(await blob.arrayBuffer());
      return { params, file: btoa(String.fromCharCode(...bytes)) };
    })).then(resolve, reject);
  };
})"""
WAIT = 20_000  # milliseconds

playing = browser = None


def started(bench):
    global playing, browser
    if browser is None:
        playing = sync_playwright().start()
        browser = playing.chromium.launch(executable_path=bench.chromium, args=FLAGS)
    return browser


def close():
    """End the browser, if it was started."""
    global playing, browser
    if browser is not None:
        browser.close()
        playing.stop()
    playing = browser = None


@contextmanager
def visit(bench, address, expected=(), ready=True, **options):
    """A page of a server in a browser of its own. At the end nothing may have been told to the console but what has one of the expected words."""
    context = started(bench).new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    context.set_default_timeout(WAIT)
    context.add_init_script(WATCH)
    page, said = context.new_page(), []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(f"error: {error}"))
    try:
        page.goto(address + "/")
        if ready:
            page.wait_for_selector("body[data-ready=true]")
        yield page
    finally:
        context.close()
    unexpected = [text for text in said if not any(word in text for word in expected)]
    equal("what the page told the console", unexpected, [])


def wait(page, condition, arg=None):
    """Wait until a function of the page gives something. Playwright's own way needs `eval`, which the page's policy forbids."""
    end = time.monotonic() + WAIT / 1000
    while not page.evaluate(condition, arg):
        need(time.monotonic() < end, f"this did not come true: {condition}")
        page.wait_for_timeout(30)


def type_scene(page, scene):
    page.fill("#seed", str(scene["seed"]))
    page.fill("#prompt", scene["caption"])


def is_drawn(page, scene):
    """Wait until the scene's picture is shown; its file, as it is shown."""
    page.wait_for_selector(f"#live-picture[data-state=done][alt*='{scene['caption']}']")
    return base64.b64decode(page.evaluate(SHOWN, "live-picture"))


def page_draws(bench):
    """What is typed is drawn; Keep puts the picture into the gallery, from where it is opened large."""
    scene, other = bench.scenes[0], bench.scenes[10]
    with visit(bench, bench.server.address) as page:
        type_scene(page, scene)
        bench.keep("page_draws", is_drawn(page, scene), scene)
        page.fill("#seed", str(other["seed"]))
        page.fill("#prompt", "")
        page.locator("#prompt").press_sequentially(other["caption"], delay=15)
        bench.keep("page_draws_again", is_drawn(page, other), other)
        need("Drawn in" in page.inner_text("#draw-status"), f"the page says {page.inner_text('#draw-status')!r}")
        page.click("#keep")
        page.wait_for_selector("#kept li")
        page.select_option("#count", "2")
        page.click("#keep")
        wait(page, "() => document.querySelectorAll('#kept li').length === 3")
        kept = page.evaluate(KEPT)
        for number, one in enumerate(kept):
            equal("the prompt of a kept picture", one["params"]["prompt"], other["caption"])
            bench.keep(f"page_keeps_{number}", one["file"], {**other, "seed": one["params"]["seed"]})
        page.click("#tab-gallery")
        page.wait_for_selector("#gallery-grid li")
        equal("the pictures of the gallery", page.locator("#gallery-grid li").count(), 3)
        page.locator("#gallery-grid button").first.click()
        page.wait_for_selector("#viewer[open]")
        equal("the words of the large picture", page.inner_text("#viewer-words"), other["caption"])
        with page.expect_download() as download:
            page.click("#viewer-download")
        need(download.value.suggested_filename.startswith("a-large-yellow-square"), f"the file is called {download.value.suggested_filename}")
        page.click("#viewer-delete")
        wait(page, "() => document.querySelectorAll('#gallery-grid li').length === 2")


def frames_come(page, least):
    """Results of so many frames are shown, and the picture is not of one colour alone."""
    wait(page, "(least) => Number(document.getElementById('result-frame').dataset.seq) >= least", least)
    page.wait_for_selector("#result-frame[data-state=done]")
    data = page.evaluate("document.getElementById('result-frame').toDataURL('image/png').split(',')[1]")
    equal("the size of a changed picture", picture(data).size, (SIDE, SIDE))
    wait(page, "() => Number(document.getElementById('fps-out').textContent) > 0 && Number(document.getElementById('delay-out').textContent) > 0")


def page_changes_live(bench):
    """The webcam, then the test pattern; the settings are changed on the way."""
    with visit(bench, bench.server.address, permissions=["camera"]) as page:
        page.click("#tab-change")
        page.fill("#change-prompt", "a large red circle at the center of a white background")
        page.click("#start-live")
        frames_come(page, 4)
        page.select_option("#source", "pattern")
        page.wait_for_selector("#start-live:has-text('Start')")
        page.click("#start-live")
        frames_come(page, 4)
        before = page.get_attribute("#result-frame", "data-generation")
        page.fill("#change-prompt", "a large yellow ring on a black background")
        wait(page, "(before) => document.getElementById('result-frame').dataset.generation !== before", before)
        page.screenshot(path=bench.out / "page-change.png")
        page.click("#keep-change")
        until(lambda: page.evaluate(KEPT), 5, "the changed picture is not kept")
        page.click("#start-live")
        page.wait_for_selector("#start-live:has-text('Start')")
    until(lambda: bench.server.get("/v1/cores").json()["live"]["active"] == 0, 5, "the live session goes on without the page")


def page_changes_once(bench):
    """One picture, painted over with the brush where its figure is."""
    scene, before = bench.otherwise(7)
    start = bench.drawn(before, scene["seed"])
    with visit(bench, bench.server.address) as page:
        page.click("#tab-change")
        page.check("#way-once", force=True)
        page.set_input_files("#once-file", {"name": "start.png", "mimeType": "image/png", "buffer": start})
        page.wait_for_selector("#brush:not([hidden])")
        page.evaluate("document.getElementById('brush-size').value = '40'")
        box = page.locator("#brush").bounding_box()
        for height in (0.6, 0.8):
            page.mouse.move(box["x"] + box["width"] * 0.1, box["y"] + box["height"] * height)
            page.mouse.down()
            page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * height, steps=4)
            page.mouse.up()
        page.fill("#change-prompt", scene["caption"])
        page.evaluate("""() => { for (const [id, value] of [['strength', '0.7'], ['change-seed', '%d']]) {
            const field = document.getElementById(id); field.value = value; field.dispatchEvent(new Event('input', { bubbles: true })); } }""" % scene["seed"])
        page.click("#change-once")
        page.wait_for_selector("#once-result:not([hidden])")
        got = base64.b64decode(page.evaluate(SHOWN, "once-result"))
        bench.keep("page_changes_once", got, scene)
        same = [picture(got).convert("RGB").getpixel((x, 20)) == picture(start).convert("RGB").getpixel((x, 20)) for x in range(SIDE)]
        need(all(same), "the picture changed where nothing was painted")


def page_describes(bench):
    scene = bench.scenes[15]
    file = bench.drawn(scene["caption"], scene["seed"])
    with visit(bench, bench.server.address) as page:
        page.click("#tab-describe")
        page.set_input_files("#describe-file", {"name": "a.png", "mimeType": "image/png", "buffer": file})
        page.wait_for_selector("#describe-picture:not([hidden])")
        page.fill("#question", "What shape is this?")
        page.click("#ask")
        page.wait_for_selector("#answer[data-state=done]")
        need(scene["shape"] in page.inner_text("#answer"), f"the answer is {page.inner_text('#answer')!r}")
        page.fill("#question", "Describe this image.")
        page.press("#question", "Enter")
        wait(page, "(words) => document.getElementById('answer').textContent.trim() === words", scene["caption"])
        page.screenshot(path=bench.out / "page-describe.png")


def page_board(bench):
    """Three cores, what they do while pictures are drawn, and that nothing is said to be a real board's."""
    with visit(bench, bench.server.address) as page:
        page.click("#tab-board")
        wait(page, "() => document.querySelectorAll('#cores li').length === 3")
        job = bench.server.post("/v1/jobs", {"kind": "image", "request": {"prompt": "a red ring", "n": 3, "steps": MOST_STEPS}}).json()["id"]
        page.wait_for_selector("#cores li[data-state=running]")
        wait(page, "() => document.getElementById('jobs-running').textContent === '1'")
        page.wait_for_timeout(1200)
        page.screenshot(path=bench.out / "page-board.png")
        bench.server.post(f"/v1/jobs/{job}/cancel", None)
        need("simulated" in page.inner_text("#board-truth").lower(), "the board is not said to be simulated")
        equal("what the page says of the board", page.inner_text("#truth"), "simulated board")
        wait(page, "() => document.getElementById('jobs-running').textContent === '0'")


def page_looks(bench):
    """Screenshots in two widths, dark and light; nothing is wider than the window."""
    scene = bench.scenes[15]
    with visit(bench, bench.server.address) as page:
        type_scene(page, scene)
        is_drawn(page, scene)
        page.click("#keep")
        page.wait_for_selector("#kept li")
        for width, scheme in ((400, "light"), (400, "dark"), (1280, "light"), (1280, "dark")):
            page.set_viewport_size({"width": width, "height": 860})
            page.emulate_media(color_scheme=scheme)
            for tab in ("change", "describe", "gallery", "board", "draw"):
                page.click(f"#tab-{tab}")
                wide = page.evaluate("document.documentElement.scrollWidth")
                need(wide <= width, f"at {width} px the tab {tab} is {wide} px wide")
                page.screenshot(path=bench.out / f"page-{tab}-{width}-{scheme}.png")


def page_documents(bench):
    with visit(bench, bench.server.address + "/docs?", ready=False) as page:
        page.locator("code", has_text="/v1/images/generations").first.wait_for(timeout=5000)


def page_recovers(bench):
    """The server is killed and started again at the same port while the page is open: the page goes on by itself."""
    first, second = bench.scenes[9], bench.scenes[30]
    lost = ("net::ERR_", "WebSocket connection")
    with Server(bench) as server:
        port = server.port
        with visit(bench, server.address, expected=lost) as page:
            type_scene(page, first)
            is_drawn(page, first)
            server.process.kill()
            server.process.wait()
            wait(page, "() => /lost/.test(document.getElementById('draw-status').textContent)"
                       " || /does not answer/.test(document.getElementById('message').textContent)")
            type_scene(page, second)
            with Server(bench, listen=f"127.0.0.1:{port}"):
                bench.keep("page_recovers", is_drawn(page, second), second)
                wait(page, "() => !document.getElementById('message').textContent.includes('does not answer')")
                page.click("#keep")
                page.wait_for_selector("#kept li")


def page_asks_for_word(bench):
    """A server with tokens: the page asks, says that a word was wrong, goes on with the right one, and keeps it."""
    scene, word = bench.scenes[13], "the-right-access-word"
    words = bench.scratch / "page-tokens"
    words.write_text(word + "\n")
    with Server(bench, "--token-file", words, ready=False) as server:
        with visit(bench, server.address, expected=("401",), ready=False) as page:
            page.wait_for_selector("#access[open]")
            page.fill("#access-word", "a-wrong-access-word")
            page.press("#access-word", "Enter")
            page.wait_for_selector("#access-wrong:not([hidden])")
            page.fill("#access-word", word)
            page.press("#access-word", "Enter")
            page.wait_for_selector("body[data-ready=true]")
            type_scene(page, scene)
            bench.keep("page_asks_for_word", is_drawn(page, scene), scene)
            page.reload()
            page.wait_for_selector("body[data-ready=true]")
        with visit(bench, f"{server.address}/#token={word}&ignored=", ready=False) as page:
            page.wait_for_selector("body[data-ready=true]")
            need(word not in page.url, "the word stays in the address")


CHECKS = [page_draws, page_changes_live, page_changes_once, page_describes, page_board, page_looks, page_documents, page_recovers, page_asks_for_word]
