"""Pages that mean harm: each costs its own picture at most, reaches nothing and reads nothing."""

import socket
import threading

import pytest

from colbench_env.design.drawing import Limits
from colbench_env.design.renderer import Renderer
from tests.colbench_env.chromium import STYLESHEET, chromium_or_skip

pytestmark = pytest.mark.slow

LIMITS = Limits(width=400, viewport_height=300, height=2000, seconds=60, elements=3000, html_characters=200_000)
ENDLESS = "<html><p>a<script>while (true);</script></html>"
LATE = "the page was not done within 2 s"


@pytest.fixture(scope="module")
def renderer(assets):
    chromium_or_skip()
    with Renderer(3, assets=assets, stylesheet=STYLESHEET, limits=LIMITS) as found:
        yield found


@pytest.fixture(scope="module")
def hasty(assets):
    """A renderer with little time and memory for a page."""
    chromium_or_skip()
    with Renderer(2, assets=assets, stylesheet=STYLESHEET, limits=Limits(seconds=2, megabytes=300)) as found:
        yield found


def texts(renderer, html):
    """The texts of the page's blocks."""
    (page,) = renderer.render_many([html])
    assert page.problem is None
    return [block.text for block in page.blocks]


@pytest.mark.parametrize(
    "script",
    [
        "while (true);",
        "(function again() { Promise.resolve().then(again) })()",
        "(function twice() { setTimeout(twice, 0); setTimeout(twice, 0) })()",
    ],
)
def test_a_script_without_end_costs_the_time_of_a_page(hasty, script):
    (page,) = hasty.render_many([f"<html><p>a<script>{script}</script></html>"])
    assert (page.problem, page.blocks, page.width, page.height) == (LATE, (), 1366, 768)


def test_a_page_that_takes_much_memory_crashes_alone(assets):
    chromium_or_skip()
    grows = """for (let index = 0; index < 1e6; index++)
        document.body.appendChild(document.createElement("p")).textContent = "x".repeat(500) + index"""
    with Renderer(2, assets=assets, stylesheet=STYLESHEET, limits=Limits(seconds=30, megabytes=300)) as patient:
        page, other = patient.render_many([f"<html><body><script>{grows}</script></html>", "<html><p>other</html>"])
    assert (page.problem, page.blocks) == ("the page crashed", ())
    assert other.blocks[0].text == "other"


def test_pages_beside_a_hostile_one_are_as_alone(renderer, assets):
    others = [f"<html><p style='color:red'>{number}</p></html>" for number in range(3)]
    alone = renderer.render_many(others)
    limits = Limits(width=400, viewport_height=300, height=2000, seconds=8)
    with Renderer(2, assets=assets, stylesheet=STYLESHEET, limits=limits) as shared:
        hostile, *beside = shared.render_many([ENDLESS, *others])
    assert hostile.problem == "the page was not done within 8 s"
    assert beside == alone


@pytest.mark.parametrize(
    ("html", "problem"),
    [
        ("<html>" + "<p>" * 4000, "the page has 4003 elements, at most 3000 are drawn"),
        ("<html>" + "x" * 200_000, "the page is 200006 characters long, at most 200000 are read"),
        (
            "<html><script>for (let i = 0; i < 4000; i++) document.write('<b>x</b>')</script>",
            "the page has 4004 elements, at most 3000 are drawn",
        ),
        ("<html><script>document.documentElement.remove()</script>", "the page cannot be measured: Uncaught"),
    ],
    ids=["tags", "text", "written", "nothing"],
)
def test_a_page_that_is_too_large_is_not_drawn_and_says_why(renderer, html, problem):
    (page,) = renderer.render_many([html])
    assert (page.problem, page.blocks) == (problem, ())


@pytest.mark.parametrize(
    "script",
    [
        "location = 'http://127.0.0.1:9/'",
        "location = 'data:text/html,gone'",
        "location = 'about:blank'",
        "location = URL.createObjectURL(new Blob(['gone'], {type: 'text/html'}))",
        "location.reload()",
        "history.back()",
        "setInterval(() => location.href = 'http://gone.test', 100)",
        "document.forms[0].submit()",
        "window.close(); self.close(); top.close()",
        "open('http://gone.test'); document.links[0].click(); frames[0].open('http://gone.test')",
        "document.links[1].click()",
        "for (let i = 0; i < 9999; i++) { alert(i); confirm(i); prompt(i); print() }",
        "document.documentElement.requestFullscreen(); document.body.requestPointerLock()",
        "navigator.serviceWorker?.register('/worker.js')",
        "onbeforeunload = (event) => event.preventDefault(); onunload = () => { while (true); }",
        "getComputedStyle = null; Element.prototype.getBoundingClientRect = () => ({}); Array.prototype.push = 0",
    ],
)
def test_a_page_stays_and_opens_nothing(renderer, script):
    html = f"""<html><body><form action="http://gone.test" method="post"></form>
    <a href="http://gone.test" target="_blank">link</a><a href="data:text/plain,gone" download="gone">download</a>
    <iframe style="display:none"></iframe>
    <script>{script}</script></html>"""
    assert texts(renderer, html) == ["link", "download"]


def test_a_refresh_is_refused(renderer):
    (page,) = renderer.render_many(["<html><meta http-equiv=refresh content='0;url=http://gone.test'><p>a</html>"])
    assert [block.text for block in page.blocks] == ["a"]


def test_nothing_is_read_from_the_disk(renderer, tmp_path):
    secret = tmp_path / "secret.html"
    secret.write_text("<body style='background:red'>the secret")
    picture = tmp_path / "picture.svg"
    picture.write_text("<svg xmlns='http://www.w3.org/2000/svg' width='77' height='77'></svg>")
    html = f"""<html><body><iframe src="{secret.as_uri()}"></iframe><object data="{secret.as_uri()}"></object>
    <img src="{picture.as_uri()}"><link rel=stylesheet href="{secret.as_uri()}"><p></p><script>
    const told = document.querySelector("p");
    const tell = (text) => told.textContent += text + " ";
    fetch("{secret.as_uri()}").then((answer) => answer.text()).then(tell, () => tell("fetch-refused"));
    const request = new XMLHttpRequest();
    request.open("GET", "{secret.as_uri()}");
    request.onload = () => tell(request.responseText);
    request.onerror = () => tell("request-refused");
    request.send();
    onload = () => tell(frames[0].document.body.innerText);
    </script></html>"""
    (page,) = renderer.render_many([html])
    told = {block.tag: block for block in page.blocks}
    assert sorted(told["p"].text.split()) == ["fetch-refused", "request-refused"]
    assert told["img"].width != 77


def test_nothing_reaches_the_network_and_what_is_asked_for_is_counted(renderer):
    heard = []
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(("127.0.0.1", 0))
        datagrams.settimeout(0.2)
        port, loose = server.getsockname()[1], datagrams.getsockname()[1]

        def listen():
            while True:
                connection, address = server.accept()
                connection.close()
                heard.append(address)
                if len(heard) == 99:
                    return

        threading.Thread(target=listen, daemon=True).start()
        (page,) = renderer.render_many(
            [
                f"""<html><head><base href="http://127.0.0.1:{port}/"><link rel=preconnect href="http://127.0.0.1:{port}">
            <link rel=dns-prefetch href="http://127.0.0.1:{port}"><link rel=prefetch href=prefetched>
            <link rel=stylesheet href=1><script src=2></script><style>@import "3"; body {{ background: url(4) }}</style>
            <script type=speculationrules>{{"prerender": [{{"source": "list", "urls": ["ahead"]}}]}}</script></head>
            <body><img src=5><video src=6></video><iframe src=7></iframe><object data=8></object><script>
            fetch("9").catch(() => 0);
            navigator.sendBeacon("10", "x");
            new WebSocket("ws://127.0.0.1:{port}/11");
            new EventSource("12");
            const servers = [{{urls: "stun:127.0.0.1:{loose}"}}];
            try {{ new (frames[0].RTCPeerConnection ?? RTCPeerConnection)({{iceServers: servers}}); }}
            catch {{ document.body.append("no calls"); }}
            </script></html>"""
            ]
        )
        with pytest.raises(TimeoutError):
            datagrams.recv(1)
    assert page.blocks[0].text == "no calls"
    assert page.refused in (
        11,
        12,
        13,
    )  # each but the web page's own; whether prefetching is tried is Chromium's affair
    assert heard == []


def test_pages_share_no_storage(renderer):
    html = """<html><p></p><script>localStorage.n = Number(localStorage.n ?? 0) + 1;
    sessionStorage.n = Number(sessionStorage.n ?? 0) + 1; window.name += "x";
    document.cookie = "n=" + localStorage.n;
    document.querySelector("p").textContent = [localStorage.n, sessionStorage.n, name, document.cookie]</script>"""
    assert [texts(renderer, html) for _ in range(2)] == [["1,1,x,n=1"], ["1,1,x,n=1"]]


@pytest.mark.parametrize(
    "html",
    [
        "<html><img src=https://picsum.photos/" + "9" * 5000 + "/200><p>a",
        f"<html><link rel=stylesheet href=https://sheets.test/small.css><p>a<p hidden title='&#{'1' * 5000};'>",
        "<html><form name=body><input name=children><input name=childNodes><p>a</form>",
        "<html><img name=createElement><img name=querySelectorAll><form name=documentElement></form><p>a",
    ],
    ids=["picture", "reference", "form", "names"],
)
def test_odd_numbers_and_names_are_drawn_as_they_are(renderer, html):
    assert "a" in texts(renderer, html)


def test_a_page_gets_the_stylesheet_a_few_times_and_no_more(renderer):
    links = "".join(f"<link rel=stylesheet href=https://sheets.test/small.css?{n}>" for n in range(50))
    (page,) = renderer.render_many([f"<html>{links}<p class=red>a</html>"])
    assert (page.problem, page.refused, page.blocks[0].colour) == (None, 46, "#ff0000")


@pytest.mark.parametrize("address", ["https://a.test/", "data:text/css,"])  # refused; with another hash
def test_a_page_has_a_few_missing_stylesheets_named_and_no_more(renderer, address):
    script = f"""for (let i = 0; i < 50; i++) {{ const link = document.createElement("link"); link.rel = "stylesheet";
    link.integrity = "sha256-{"A" * 43}="; link.href = "{address}" + i + "x".repeat(100000);
    document.head.append(link); }}"""
    (page,) = renderer.render_many([f"<html><p>a<script>{script}</script>"])
    assert (page.problem, len(page.missing_sheets)) == (None, 20)
    assert {len(url) for url in page.missing_sheets} == {200}


def test_texts_of_all_blocks_together_have_a_limit(assets):
    chromium_or_skip()
    with Renderer(1, assets=assets, stylesheet=STYLESHEET, limits=Limits(page_text=10)) as renderer:
        assert texts(renderer, "<html><p>1234<p>5678<p>9012<p>3456") == ["1234", "5678", "90"]


@pytest.mark.parametrize(
    ("html", "seen"),
    [
        ("<html><body style='white-space:nowrap'>" + "word " * 30_000, 1),
        ("<html>" + "<iframe></iframe>" * 100, 13),
        ("<html>" + "<div>" * 2000 + "deep", 0),
        (
            "<html><style>:root{--v0:x;"
            + "".join(f"--v{i}:var(--v{i - 1}) var(--v{i - 1});" for i in range(1, 40))
            + "}p::before{content:var(--v39)}</style><p>a",
            1,
        ),
        ("<html><p style='font-size:99999px'>a<p style='transform:scale(9999);text-align:center'>b", 2),
        ("<html><div style='width:99999999px;height:99999999px;filter:blur(9px);background:red'>", 1),
    ],
    ids=["line", "frames", "deep", "variables", "giant", "plain"],
)
def test_what_is_merely_too_much_is_drawn_within_the_limits(renderer, html, seen):
    (page,) = renderer.render_many([html])
    assert (page.problem, page.width, len(page.blocks)) == (None, 400, seen)
    assert page.height <= 2000
