"""Pages that mean no harm: what is drawn, what is measured, and that it is always the same."""

import asyncio
import http.server
import io
import os
import signal
import threading
from pathlib import Path

import pytest
from PIL import Image

from colbench_env.design import placeholders
from colbench_env.design.chromium import descendants, find_chromium
from colbench_env.design.drawing import Limits, white
from colbench_env.design.page import Block
from colbench_env.design.placeholders import Placeholder, placeholder
from colbench_env.design.renderer import Renderer
from colbench_env.types import BadInput
from tests.colbench_env.chromium import SHEET, STYLESHEET, chromium_or_skip

pytestmark = pytest.mark.slow

LIMITS = Limits(width=400, viewport_height=300, height=2000, seconds=60)
HEAD = "<link rel=stylesheet href=https://sheets.test/small.css>"

# Everything that tells one moment or one run from another, written into the page.
RESTLESS = """<html><head><style>
@keyframes turn { from { margin-left: 0 } to { margin-left: 300px } }
.ends { animation: turn 300ms } .endless { animation: turn 300ms infinite } .moves { transition: width 1s; width: 10px }
</style></head><body><p id=a></p><p id=b></p><p class=ends>ends</p><p class=endless>endless</p><p class=moves>m</p>
<marquee>away</marquee><input autofocus value=caret><svg width=100 height=20><rect width=20 height=20>
<animate attributeName=x from=0 to=80 dur=1s repeatCount=indefinite /></rect></svg>
<script>
  const say = () => [Date.now(), performance.now(), Math.random(), crypto.getRandomValues(new Uint8Array(4)),
    new Date().getTimezoneOffset(), navigator.language, history.length].join(" ");
  a.textContent = say();
  document.querySelector(".moves").style.width = "200px";
  let frames = 0, timers = 0;
  const frame = () => { frames++; requestAnimationFrame(frame); };
  frame();
  setInterval(() => { timers++; b.textContent = [frames, timers, say(), localStorage.length, document.cookie].join(" ");
    localStorage.setItem(timers, "kept"); document.cookie = "kept=" + timers; }, 7);
</script></body></html>"""


@pytest.fixture(scope="module")
def renderer(assets):
    chromium_or_skip()
    with Renderer(3, assets=assets, stylesheet=STYLESHEET, limits=LIMITS) as found:
        yield found


def drawn(renderer, html):
    """The page of the HTML and its picture."""
    (page,) = renderer.render_many([html])
    assert page.problem is None
    picture = Image.open(io.BytesIO(page.png)).convert("RGB")
    assert picture.size == (page.width, page.height)
    return page, picture


def test_a_page_is_drawn_with_the_stylesheet_that_it_asks_for(renderer):
    page, picture = drawn(renderer, f"<html>{HEAD}<body style='margin:0'><div class=box></div></html>")
    assert [picture.getpixel(place) for place in ((0, 0), (99, 49), (100, 0), (0, 50))] == [
        (0, 0, 255), (0, 0, 255), (255, 255, 255), (255, 255, 255),
    ]  # fmt: skip
    assert (page.width, page.height, page.refused) == (400, 300, 0)


SCRIPT = "<script src=https://scripts.test/3.4></script>"


@pytest.mark.parametrize(
    "html",
    [
        "<html><link rel=stylesheet href=//sheets.test/small@3.css?x><body{body}",
        "<html><link rel=stylesheet crossorigin=anonymous href=https://sheets.test/small@3.css><body{body}",
        "<html><style>@import 'https://sheets.test/small@3.css';</style><body{body}",
        f"<html>{SCRIPT}<script>tailwind.config = {{theme: {{}}}}</script><body{{body}}",
        f"<html><body{{body}}{SCRIPT}",
        "<html><script type=module async crossorigin src=https://scripts.test></script><body{body}",
        f"<html>{SCRIPT}<script>document.head.remove()</script><body{{body}}",
    ],
    ids=["version", "crossorigin", "import", "script", "below", "module", "headless"],
)
def test_other_versions_and_scripts_bring_a_page_the_same_stylesheet(renderer, html):
    page, picture = drawn(renderer, html.replace("{body}", " style='margin:0'><div class=box>"))
    assert [picture.getpixel(place) for place in ((99, 49), (100, 0))] == [(0, 0, 255), (255, 255, 255)]
    assert (page.refused, page.missing_sheets) == (0, ())


def test_a_page_names_the_stylesheets_that_it_asked_for_and_did_not_get(renderer):
    pages = renderer.render_many(
        [
            "<html><link rel=stylesheet href=https://fonts.test/css2?family=A><style>@import '//b.test/b.css';</style>",
            "<html><link rel=stylesheet href=https://scripts.test><img src=//c.test/c.png><script src=//c.test/c.js>",
            "<html><script src=https://cdn.test/tailwindcss@3.js></script>",
            f"<html><link rel=stylesheet integrity=sha256-{'A' * 43}= crossorigin href=https://sheets.test/small.css>",
            f"<html>{HEAD}<link rel=icon href=//c.test/c.ico>",
        ]
    )
    assert [page.missing_sheets for page in pages] == [
        ("https://fonts.test/css2?family=A", "http://b.test/b.css"),
        ("https://scripts.test/",),  # a script is no stylesheet
        ("https://cdn.test/tailwindcss@3.js",),
        ("https://sheets.test/small.css",),  # it is not the one that the hash is of
        (),
    ]


def test_blocks_are_what_is_seen_in_document_order(renderer):
    page, _ = drawn(
        renderer,
        """<html><body style="margin:0;font:20px monospace"><section style="background:#00f8;padding:10px">
        <h2 style="margin:0;color:#fff;font-weight:600;line-height:30px">  Two\n words</h2></section>
        <p style="margin:0;height:20px"><b style="display:none">hidden</b></p><p style="visibility:hidden">no</p>
        <p style="opacity:0">no</p><div style="position:absolute;left:-99px;width:9px">away</div>
        <ul style="margin:0;padding:0;list-style:none"><li style="height:20px;font-size:10px">a<li><input value="in" 
        style="display:block;width:50px;height:20px;margin:0;box-sizing:border-box;font:10px serif;color:#123456">
        </ul><img src=x style="display:block;width:30px;height:40px">""",
    )
    assert page.blocks == (
        Block("section", "", 0, 0, 400, 50, "#000000", "#7777ff", 20, False, "body>section"),
        Block("h2", "Two words", 10, 10, 380, 30, "#ffffff", "#7777ff", 30, True, "body>section>h2"),
        Block("li", "a", 0, page.blocks[2].y, 400, 20, "#000000", "#ffffff", 10, False, "body>ul>li[1]"),
        Block("input", "in", 0, page.blocks[2].y + 20, 50, 20, "#123456", "#ffffff", 10, False, "body>ul>li[2]>input"),
        Block("img", "", 0, page.blocks[2].y + 40, 30, 40, "#000000", "#ffffff", 20, False, "body>img"),
    )


SR_ONLY = "position:absolute;width:1px;height:1px;margin:-1px;overflow:hidden;clip:rect(0,0,0,0);white-space:nowrap"
UNSEEN = [
    f"<span style='{SR_ONLY}'>no</span>",
    f"<span style='{SR_ONLY};clip:auto'>no<b>no</b></span>",
    f"<label style='{SR_ONLY};clip:auto;clip-path:inset(50%)'>no<input value=no></label>",
    "<p style='position:absolute;clip:rect(1px,1px,1px,1px)'>no</p>",
    "<details>no<p>no</p><summary></summary></details>",
    "<div hidden=until-found>no<p>no</p></div>",
    "<div style='content-visibility:hidden;height:50px'>no<p>no</p></div>",
    "<nav style='max-height:0;overflow:hidden'>no<p>no</p><img src=x width=9 height=9></nav>",
    "<div style='width:0;height:40px;overflow:hidden;white-space:nowrap'><p>no</p></div>",
    "<div style='height:0;overflow:hidden;position:relative'><p style='position:absolute'>no</p></div>",
    "<div style='height:0;overflow:hidden;transform:translateX(1px)'><p style='position:fixed'>no</p></div>",
    "<div style='height:0;overflow:clip'><input value=no><textarea>no</textarea></div>",
    "<div style='overflow:hidden;width:90px'><div style='transform:translateX(100px)'>no<hr></div></div>",
    "<div style='overflow-y:scroll;height:30px'><p style='margin-top:60px'>no</p></div>",
    "<p style='height:1px;overflow:hidden'>no</p>",
    "<p style='position:absolute;left:-9999px'>no</p>",
    "<p style='position:absolute;top:-9999px'>no</p>",
    "<p style='position:absolute;left:9999px'>no</p>",
    "<p style='text-indent:-9999px'>no</p>",
    "<p style='font-size:0'>no</p>",
    "<p style='color:transparent'>no</p>",
    "<p style='transform:scale(0)'>no</p>",
    "<div style='transform:scaleY(0)'><p>no</p></div>",
    "<div style='opacity:0'><p>no</p></div>",
    "<div style='opacity:.1'><p style='opacity:.1'>no</p></div>",
    "<div style='filter:opacity(0)'>no<p>no</p></div>",
    "<div style='visibility:hidden'>no<p>no</p></div>",
    "<p style='clip-path:inset(100%)'>no</p>",
    "<p style='clip-path:inset(0 50%)'>no</p>",
    "<p style='clip-path:circle(0)'>no<b>no</b></p>",
    "<p style='clip-path:polygon(0 0,0 0,0 0,0 0)'>no</p>",
]
SEEN = [
    "<details open>yes<p>yes</p><summary></summary></details>",
    "<div style='height:0;overflow:hidden'><p style='position:absolute'>yes</p></div>",
    "<div style='height:0;overflow:hidden;position:relative'><p style='position:fixed'>yes</p></div>",
    "<div style='height:0'><p>yes</p></div>",
    "<span style='overflow:hidden'>yes</span>",
    "<table><tr style='overflow:hidden'><td>yes</td></tr></table>",
    "<div style='overflow:auto;height:50px'><p>yes</p></div>",
    "<div style='overflow:hidden;transform:rotate(90deg);width:99px;height:40px;margin:60px'>yes<p>yes</p></div>",
    "<h1 style='background:linear-gradient(red,blue);-webkit-background-clip:text;color:transparent'>yes</h1>",
    "<p style='color:transparent;text-shadow:0 0 2px red'>yes</p>",
    "<p style='position:absolute;clip:rect(auto,auto,auto,auto)'>yes</p>",
    "<p style='clip-path:inset(calc(10% - 1px))'>yes</p>",
    "<p style='clip-path:inset(10% 20% 0 1px round 4px)'>yes</p>",
    "<p style='clip-path:polygon(0 0,100% 0,100% 100%)'>yes</p>",
    "<p style='clip-path:circle(40%)'>yes</p>",
    "<div style='opacity:.5'><p style='opacity:.5'>yes</p></div>",
    "<div style='visibility:hidden'><p style='visibility:visible'>yes</p></div>",
]


def texts_by_section(renderer, snippets):
    """Snippet -> the texts of its blocks, or their tags where they have none."""
    page, _ = drawn(renderer, "<html><body>" + "".join(f"<section>{html}</section>" for html in snippets) + "</html>")
    found = {f"body>section[{number}]": [] for number in range(1, len(snippets) + 1)}
    for block in page.blocks:
        found[">".join(block.path.split(">")[:2])].append(block.text or block.tag)
    return dict(zip(snippets, found.values(), strict=True))


def test_what_nobody_sees_is_no_block(renderer):
    assert texts_by_section(renderer, UNSEEN) == dict.fromkeys(UNSEEN, [])


def test_what_is_seen_though_it_looks_hidden_is_a_block(renderer):
    assert texts_by_section(renderer, SEEN) == {html: ["yes"] * html.count("yes") for html in SEEN}


def test_a_body_without_scrolling_hides_nothing(renderer):
    style = "<style>body { overflow: hidden; height: 10px }</style>"
    page, _ = drawn(renderer, f"<html>{style}<body><div style='height:50px'></div><p>yes</p></html>")
    assert [block.text for block in page.blocks] == ["yes"]


def test_a_painted_element_whose_text_nobody_sees_is_a_box(renderer):
    page, _ = drawn(
        renderer, "<html><a style='display:block;background:red;text-indent:-9999px;height:9px'>no</a></html>"
    )
    assert [(block.tag, block.text, block.background) for block in page.blocks] == [("a", "", "#ff0000")]


def test_a_single_pixel_is_no_block_and_a_line_is_one(renderer):
    dot, line = "<p style='width:1px;height:1px;background:red'>", "<p style='width:90px;height:1px;background:red'>"
    page, _ = drawn(renderer, f"<html>{dot}</p>{line}</p></html>")
    assert [(block.width, block.height) for block in page.blocks] == [(90, 1)]


def test_the_same_html_gives_the_same_page_beside_others_and_after_a_restart(renderer, assets):
    first, other, second = renderer.render_many([RESTLESS, "<html><p>other</html>", RESTLESS])
    assert first.problem is None
    assert first == second
    assert other.blocks[0].text == "other"
    told = {block.path: block.text for block in first.blocks}
    assert told["body>p[1]"].startswith("1000 0 ")  # the time that the page began at
    assert told["body>p[2]"].split()[1] == "142"  # 7 ms each in one second: time has gone on by that and no more
    with Renderer(1, assets=assets, stylesheet=STYLESHEET, limits=LIMITS) as again:
        assert again.render_many([RESTLESS]) == [first]


def test_a_page_is_as_high_as_what_it_shows_up_to_the_limit(renderer):
    page, picture = drawn(renderer, "<html><body style='margin:0'><div style='height:1234px;background:#f00'>")
    assert page.height == 1234
    assert picture.getpixel((0, 1233)) == (255, 0, 0)
    page, picture = drawn(renderer, "<html><body style='margin:0'><div style='height:99999999px;background:#f00'>")
    assert page.height == 2000
    assert picture.getpixel((399, 1999)) == (255, 0, 0)


def test_what_timers_and_far_away_pictures_bring_is_there(renderer):
    late = "setTimeout(() => document.body.append('late'), 900); setTimeout(() => document.body.append('never'), 1100)"
    page, picture = drawn(
        renderer,
        f"""<html><body style="margin:0"><script>{late}</script><div style="height:1500px"></div>
        <img loading=lazy src="https://picsum.photos/id/48/400/100" style="display:block"></html>""",
    )
    assert page.blocks[0].text == "late"
    assert (page.blocks[1].width, page.blocks[1].height, page.refused) == (400, 100, 0)
    assert len(picture.crop((0, 1500, 400, 1600)).getcolors(10_000)) > 100


def test_a_text_that_is_no_utf_8_is_drawn(renderer):
    page, _ = drawn(renderer, "<html><body><p>é \ud800 \0x</p></html>")
    assert page.blocks[0].text == "é ? x"


def test_pages_render_from_any_event_loop(renderer):
    async def several():
        return await asyncio.gather(*(renderer.render(f"<html><p>{number}</html>") for number in range(3)))

    pages = asyncio.run(several())
    assert [page.blocks[0].text for page in pages] == ["0", "1", "2"]


def test_a_page_that_asks_for_a_stylesheet_that_is_not_there_is_refused_with_one_sentence(tmp_path):
    chromium_or_skip()
    with Renderer(1, assets=tmp_path, stylesheet=STYLESHEET, limits=LIMITS) as renderer:
        with pytest.raises(BadInput, match="small.css: not there; `python -m launch.data assets` fetches it once$"):
            renderer.render_many([f"<html>{HEAD}<p>a</html>"])
        assert renderer.render_many(["<html><p>a</html>"])[0].blocks[0].text == "a"
        (tmp_path / "small.css").write_bytes(SHEET + b" ")
        with pytest.raises(BadInput, match=r"small.css: sha256 [0-9a-f]{64} \(\d+ bytes\), expected "):
            renderer.render_many([f"<html>{HEAD}<p>a</html>"])


def test_real_pictures_are_fetched_where_that_is_asked_for(assets, monkeypatch):
    chromium_or_skip()
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200 if self.path == "/40/30" else 404)
            self.send_header("content-type", "image/svg+xml")
            self.end_headers()
            self.wfile.write(b"<svg xmlns='http://www.w3.org/2000/svg' width='77' height='33'></svg>")

        def log_message(self, *_):
            pass

    monkeypatch.setattr(placeholders, "HOSTS", {"127.0.0.1"})
    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server,
        Renderer(1, online_images=True, assets=assets, stylesheet=STYLESHEET, limits=LIMITS) as online,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        site = f"http://127.0.0.1:{server.server_address[1]}"
        for _ in range(2):
            page, _picture = drawn(online, f"<html><img src={site}/40/30></html>")
            assert (page.blocks[0].width, page.blocks[0].height) == (77, 33)
        assert asked == ["/40/30"]
        page, _picture = drawn(online, f"<html><img src={site}/50/30></html>")
        assert (page.blocks[0].width, page.blocks[0].height) == (50, 30)  # there is none: a placeholder
        server.shutdown()
        server.server_close()
        with pytest.raises(ConnectionError, match=f"^{site}/60/30: cannot be fetched: "):
            online.render_many([f"<html><img src={site}/60/30></html>"])


def test_a_dead_browser_is_started_again(renderer):
    before = renderer.render_many(["<html><p>a</html>"])
    for process in descendants(os.getpid()):
        try:
            command = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
        except FileNotFoundError:
            continue
        if b"--remote-debugging-pipe" in command and not any(part.startswith(b"--type=") for part in command):
            os.kill(process, signal.SIGKILL)
    assert renderer.render_many(["<html><p>a</html>"]) == before


def test_without_a_chromium_one_sentence_says_how_to_get_one(monkeypatch, tmp_path):
    monkeypatch.delenv("COLBENCH_CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path))
    with pytest.raises(
        BadInput, match="^no Chromium is installed: `playwright install --only-shell chromium` brings one"
    ):
        find_chromium()
    shell = tmp_path / "chromium_headless_shell-1200" / "chrome-linux" / "headless_shell"
    whole = tmp_path / "chromium-1200" / "chrome-linux" / "chrome"
    for program in (whole, shell):
        program.parent.mkdir(parents=True)
        program.write_text("")
        program.chmod(0o755)
        assert find_chromium() == str(program)
    monkeypatch.setenv("COLBENCH_CHROMIUM", str(tmp_path / "none"))
    with pytest.raises(BadInput, match="none: not a program that can be run, expected a Chromium$"):
        find_chromium()


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("https://picsum.photos/200/300", Placeholder("picsum.photos/id/48", 200, 300)),
        ("https://picsum.photos/200", Placeholder("picsum.photos/id/48", 200, 200)),
        ("https://picsum.photos/id/7/200/300.jpg?grayscale", Placeholder("picsum.photos/id/7", 200, 300)),
        ("https://picsum.photos/id/48/200/300-estate", Placeholder("picsum.photos/id/48", 200, 300)),
        ("https://picsum.photos/seed/40/20/30", Placeholder("picsum.photos/seed/40", 20, 30)),
        ("https://source.unsplash.com/random/80x60/?city", Placeholder("picsum.photos/id/48", 80, 60)),
        ("https://images.unsplash.com/photo-1?w=99", Placeholder("images.unsplash.com/photo-1", 99, 99)),
        ("https://via.placeholder.com/32", Placeholder("via.placeholder.com/32", 32, 32)),
        ("https://placehold.co/60x40/png", Placeholder("placehold.co/60x40/png", 60, 40)),
        ("https://picsum.photos/", Placeholder("picsum.photos/id/48", 300, 300)),
        ("https://picsum.photos/999999/0", Placeholder("picsum.photos/id/48", 5000, 1)),
        ("https://example.com/200/300", None),
    ],
)
def test_a_placeholder_has_the_size_that_the_url_asks_for(url, found):
    assert placeholder(url) == found


def test_placeholders_of_one_picture_have_its_colours_and_other_pictures_others():
    (small, large, other) = (
        Placeholder(identity, size, size).svg() for identity, size in (("a", 9), ("a", 99), ("b", 9))
    )
    hue = [svg.split("hsl(")[1].split(",")[0] for svg in (small, large, other)]
    assert hue == ["284", "284", "87"]


def test_the_blank_picture_is_white():
    picture = Image.open(io.BytesIO(white(30, 20)))
    assert (picture.size, picture.getcolors()) == ((30, 20), [(600, (255, 255, 255))])
