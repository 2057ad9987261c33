"""A stylesheet cut down to a page: what is kept, and that a browser draws the same with it."""

import hashlib

import pytest

from colbench_env.design.assets import Stylesheet
from colbench_env.design.renderer import Renderer
from colbench_env.design.trimming import Trimmer
from tests.colbench_env.chromium import chromium_or_skip

pytestmark = pytest.mark.slow

ALWAYS = "/*! a licence */*,::before{margin:0}"
TURN = "@keyframes turn{from{left:0}to{left:1px}}"
WIDE = "@media (min-width:640px){"
SHEET = (
    ALWAYS + ".a{color:red}.a .b,p.c>.d{color:blue}" + TURN + r".w-1\/2:hover{width:50%}.e:not(.f){top:0}"
    ".space-y>:not([hidden])~:not(.g){top:1px}"
    + WIDE + r".sm\:a{color:red}@media (min-width:768px){.sm\:a{top:2px}.sm\:b{top:3px}}.sm\:c{top:4px}}"
    + r".\32xl\:p{top:5px}@font-face{font-family:x}"
)  # fmt: skip
FONT = "@font-face{font-family:x}"


@pytest.mark.parametrize(
    ("body", "before", "after"),
    [
        ("<p>", "", ""),
        ("<p class=a>", ".a{color:red}", ""),
        ("<p class='a b'>", ".a{color:red}.a .b,p.c>.d{color:blue}", ""),
        ("<p class=c><i class=d>", ".a .b,p.c>.d{color:blue}", ""),
        ("<p class=c>", "", ""),
        ("<p class=A>", ".a{color:red}", ""),  # without a doctype a class is the same in other cases
        ("<p class='&#97;'>", ".a{color:red}", ""),
        ('<p class="w-1/2">', "", r".w-1\/2:hover{width:50%}"),
        ("<p class=\ne\n>", "", ".e:not(.f){top:0}"),
        ("<p class=space-y>", "", ".space-y>:not([hidden])~:not(.g){top:1px}"),
        ("<p class=sm:c>", "", WIDE + r".sm\:c{top:4px}}"),
        (
            "<p class=sm:a>",
            "",
            WIDE + r".sm\:a{color:red}}" + WIDE + r"@media (min-width:768px){.sm\:a{top:2px}}}",
        ),
        ("<p class=2xl:p>", "", r".\32xl\:p{top:5px}"),
    ],
)
def test_rules_whose_classes_a_page_holds_are_kept_and_all_without_a_class(body, before, after):
    assert Trimmer(SHEET).trim(f"<html><body>{body}</html>") == ALWAYS + before + TURN + after + FONT


@pytest.mark.parametrize(
    "html",
    [
        "<script>document.body.className = 'a'</script>", "<p ONCLICK ='x'>", "<iframe src=x>", "<frame src=x>",
        "<p srcdoc=x>", "<a href=javascript:x>", "<object data=x>", "<embed src=x>", "<style>@import 'x';</style>",
        "<link integrity = 'sha512-x'>", "<p class='&#000000097;'>", "<p title='&#" + "1" * 5000 + "'>",
    ],
)  # fmt: skip
def test_a_page_that_could_make_up_classes_or_checks_the_sheet_gets_it_whole(html):
    assert Trimmer(SHEET).trim(html) == SHEET


def test_a_browser_draws_the_same_with_the_rules_that_are_kept(tmp_path, monkeypatch):
    chromium_or_skip()
    sheet = Stylesheet("cut.css", hashlib.sha256(SHEET.encode()).hexdigest(), ("sheets.test/cut.css",))
    (tmp_path / sheet.name).write_text(SHEET)
    head = "<html><link rel=stylesheet href=https://sheets.test/cut.css><body>"
    pages = [head + f"<p class='{name}'>words<b class=b>bold</b></p>" for name in ("", "a", "sm:a", "A 2xl:p", "e")]
    drawn = []
    for trim in (Trimmer.trim, lambda self, html: self.sheet):
        monkeypatch.setattr(Trimmer, "trim", trim)
        with Renderer(2, assets=tmp_path, stylesheet=sheet) as renderer:
            drawn.append(renderer.render_many(pages))
    assert drawn[0] == drawn[1]
    assert len({page.png for page in drawn[0]}) > 1
