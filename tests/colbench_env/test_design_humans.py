"""The two humans who look at pages, with a renderer that knows a few pages by heart."""

import asyncio
import base64
from dataclasses import replace

import pytest

from colbench_env.design.cache import CachedRenderer, bytes_of
from colbench_env.humans import SimulatorRequest
from colbench_env.humans.design import DesignSimulator
from colbench_env.humans.vision import VisionSimulator, data_url
from colbench_env.simulator_health import leaks
from colbench_env.types import BadInput, Message, NoReply, Task
from tests.colbench_env.design_pages import SHOP, changed, page, without

WANTED = "<html><p>wanted</html>"
BROKEN = "<html><script>for(;;);</script></html>"
BLUE = "<html><p>blue</html>"
POOR = "<html><p>poor</html>"
TASK = Task("Make a page for a shop.", WANTED)


class ByHeart:
    """A renderer of known pages; counts how often each is asked for."""

    def __init__(self):
        blue = changed(SHOP, lambda one: replace(one, background="#2563eb"), "body>header")
        self.pages = {
            WANTED: replace(SHOP, png=b"wanted"),
            BLUE: replace(blue, png=b"blue"),
            POOR: without(blue, "body>footer", "body>main>section[2]"),
            BROKEN: page(problem="the script did not end in 5 s."),
        }
        self.asked = []

    async def render(self, html):
        self.asked.append(html)
        return self.pages[html]


def request(turn, seed=0, task=TASK):
    return SimulatorRequest(task, (Message("user", task.problem_description), Message("assistant", turn)), seed)


def says(human, turn, seed=0, task=TASK):
    return asyncio.run(human.reply(request(turn, seed, task)))


def test_the_human_names_what_differs_and_is_content_with_what_it_wants():
    human = DesignSimulator(ByHeart(), plain=True)
    assert says(human, f"Here: ```html\n{BLUE}\n```") == "The header should be dark green, yours is blue."
    assert says(human, WANTED) == "That is just what I want."


def test_the_seed_decides_how_many_differences_are_told_and_the_same_seed_the_same():
    human = DesignSimulator(ByHeart())
    replies = [says(human, POOR, seed) for seed in range(12)]
    assert replies == [says(DesignSimulator(ByHeart()), POOR, seed) for seed in range(12)]
    assert {reply.count("missing") + reply.count("should be") for reply in replies} == {1, 2, 3}
    assert replies[0] == "A section 'Our cakes' is missing (it has one picture) below the section 'Fresh bread'."
    assert len(set(replies)) == 12 and all(len(reply) <= 1000 and not leaks(TASK, reply) for reply in replies)


def test_a_page_that_did_not_show_is_told_so_and_no_page_brings_the_first_wish():
    human = DesignSimulator(ByHeart())
    assert says(human, BROKEN) == "Your page did not show: the script did not end in 5 s."
    assert says(human, "Which colours do you like?") == (
        "I see no page yet. The main part is missing (it has one picture)."
    )


def test_the_same_page_is_compared_once():
    renderer = ByHeart()
    human = DesignSimulator(renderer)
    for seed in range(3):
        says(human, BLUE, seed)
    assert sorted(renderer.asked) == [BLUE, WANTED]


def test_a_task_whose_reference_is_no_page_ends_the_run_and_one_that_does_not_show_its_episode():
    with pytest.raises(BadInput, match="has no page as ground_truth, expected <html>...</html>"):
        says(DesignSimulator(ByHeart()), BLUE, task=Task("Make it.", "def f(): pass"))
    with pytest.raises(NoReply, match="the reference cannot be shown: the script did not end"):
        says(DesignSimulator(ByHeart()), BLUE, task=Task("Make it.", BROKEN))


class Sees:
    """An endpoint that keeps what it was sent."""

    class settings:
        in_rows = {"model": "eyes"}

    def __init__(self):
        self.sent = []

    async def complete(self, messages, seed):
        self.sent.append((messages, seed))
        return "Make it green."

    def parameters(self, seed):
        return {"seed": seed}


def test_a_model_that_sees_gets_both_pictures_and_no_source():
    endpoint = Sees()
    human = VisionSimulator(endpoint, ByHeart())
    assert says(human, f"Here it is: {BLUE}", seed=7) == "Make it green."
    [([message], seed)] = endpoint.sent
    text, ours, theirs = message["content"]
    assert (seed, message["role"]) == (7, "user")
    assert "Designer: Here it is: [a page]" in text["text"] and "<p>" not in text["text"]
    assert "Make a page for a shop." in text["text"]
    assert [part["image_url"]["url"] for part in (ours, theirs)] == [data_url(b"blue"), data_url(b"wanted")]
    assert base64.b64decode(data_url(b"blue").removeprefix("data:image/png;base64,")) == b"blue"
    assert human.settings == {"prompt": "design_human", "looks": "at both pages", "model": "eyes"}


def test_a_model_that_sees_is_not_asked_about_no_page_or_one_that_did_not_show():
    endpoint = Sees()
    human = VisionSimulator(endpoint, ByHeart())
    assert says(human, "What shall it be?") == "I see no page yet."
    assert says(human, BROKEN) == "Your page did not show: the script did not end in 5 s."
    assert endpoint.sent == []


def test_a_cache_renders_a_text_once_keeps_no_failure_and_forgets_the_oldest():
    class Once(ByHeart):
        async def render(self, html):
            await asyncio.sleep(0)
            return await super().render(html)

    renderer = Once()
    cache = CachedRenderer(renderer, sum(bytes_of(renderer.pages[text]) for text in (WANTED, BLUE)))

    async def ask(*texts):
        return await asyncio.gather(*(cache.render(text) for text in texts), return_exceptions=True)

    assert asyncio.run(ask(WANTED, WANTED, BLUE)) == [renderer.pages[text] for text in (WANTED, WANTED, BLUE)]
    assert sorted(renderer.asked) == [BLUE, WANTED]
    assert isinstance(asyncio.run(ask("unknown"))[0], KeyError)
    assert isinstance(asyncio.run(ask("unknown"))[0], KeyError)
    assert renderer.asked.count("unknown") == 2
    renderer.pages[POOR] = replace(renderer.pages[POOR], png=b"poor")
    asyncio.run(ask(BLUE, POOR))  # no room for all: "wanted" was looked at the longest ago
    asyncio.run(ask(BLUE))
    assert (renderer.asked.count(BLUE), renderer.asked.count(WANTED)) == (1, 1)
    asyncio.run(ask(WANTED))
    assert renderer.asked.count(WANTED) == 2
