"""Which URLs get the Tailwind stylesheet, and which scripts bring it."""

import pytest

from colbench_env.design.assets import TAILWIND

NPM = "https://cdn.jsdelivr.net/npm"


@pytest.mark.parametrize(
    "url",
    [
        *(f"{NPM}/tailwindcss@{version}/dist/tailwind.min.css" for version in (
            "2.2.19", "2.2.19?v=1", "2.1.2", "2", "^2", "%5E2", "~2.2", "v2.0.1", "2.x", "2.2.*", "2.0.0-alpha.25",
            "1.9.6", "^1.0",
        )),
        f"{NPM}/tailwindcss@2.2.19/dist/tailwind.css",
        f"{NPM}/tailwindcss@2.2.16/dist/tailwind.css#top",
        f"{NPM}/tailwindcss@2",
        "http://cdn.jsdelivr.net/npm/tailwindcss@2.2.19/",
        "https://unpkg.com/tailwindcss@^2/dist/tailwind.min.css?minify",
        "https://www.unpkg.com/tailwindcss@2.2.7/dist/tailwind.css",
        "https://UNPKG.com/tailwindcss@~2/dist/tailwind.min.css",
        "https://cdnjs.cloudflare.com/ajax/libs/tailwindcss/2.2.19/tailwind.min.css",
        "https://cdnjs.cloudflare.com/ajax/libs/tailwindcss/2.0.0-alpha.13/tailwind.css",
        "https://cdnjs.cloudflare.com/ajax/libs/tailwindcss/1.4.6/tailwind.min.css",
    ],
)  # fmt: skip
def test_every_spelling_of_tailwind_1_and_2_gets_the_stylesheet(url):
    assert TAILWIND.answers(url)


@pytest.mark.parametrize(
    "url",
    [
        # Of these versions there is no such file.
        f"{NPM}/tailwindcss/dist/tailwind.min.css",
        f"{NPM}/tailwindcss@latest/dist/tailwind.min.css",
        f"{NPM}/tailwindcss@3.4.1/dist/tailwind.min.css",
        f"{NPM}/tailwindcss@22/dist/tailwind.min.css",
        f"{NPM}/tailwindcss@>=2/dist/tailwind.min.css",
        f"{NPM}/tailwindcss@2.2.19.1/dist/tailwind.min.css",
        f"{NPM}/tailwindcss@4/index.css",
        # These are other files, packages and hosts.
        f"{NPM}/tailwindcss@2.2.19/dist/utilities.min.css",
        f"{NPM}/tailwindcss@2.2.19/dist/tailwind.min.css/more",
        f"{NPM}/tailwindcss@2.2.19/../other@2/dist/tailwind.min.css",
        f"{NPM}/tailwindcss-forms@2/dist/tailwind.min.css",
        "https://cdn.tailwindcss.com/",
        "https://cdn.jsdelivr.net.evil.test/npm/tailwindcss@2/dist/tailwind.min.css",
        "https://evil.test/cdn.jsdelivr.net/npm/tailwindcss@2/dist/tailwind.min.css",
        "https://cdnXjsdelivr.net/npm/tailwindcss@2/dist/tailwind.min.css",
        "https://cdnjs.cloudflare.com/ajax/libs/tailwindcss/3.4.1/tailwind.min.css",
        "data:text/css,p{}",
    ],
)
def test_other_versions_files_and_hosts_do_not_get_it(url):
    assert not TAILWIND.answers(url)


@pytest.mark.parametrize(
    ("url", "answered"),
    [
        ("https://cdn.tailwindcss.com", True),
        ("https://cdn.tailwindcss.com/3.4.1?plugins=forms,typography", True),
        ("//cdn.tailwindcss.com/", True),
        (f"{NPM}/@tailwindcss/browser@4", True),
        (f"{NPM}/@tailwindcss/browser", True),
        (f"{NPM}/@tailwindcss/browser@4.1.3/dist/index.global.js", True),
        ("https://unpkg.com/@tailwindcss/browser@4", True),
        (f"{NPM}/@tailwindcss/browser-other@4", False),
        (f"{NPM}/@tailwindcss/forms@0.5", False),
        ("https://cdn.tailwindcss.com.evil.test/", False),
        ("https://tailwindcss.com/", False),
    ],
)
def test_the_scripts_that_tailwind_offers_for_browsers_bring_it(url, answered):
    assert TAILWIND.answers_script(url) is answered
