"""`python -m benchmarks.rollout_restarts`: a file of rollouts cut off at 1,000 places and continued each time.

Prints how many episodes were lost or doubled, and how often the continued file is the whole one, byte for byte.
"""

import asyncio
import random
import tempfile
from collections import Counter
from pathlib import Path

from colbench_env.episodes import Settings, make_trajectory, play_async
from colbench_env.humans.scripted import ScriptedSimulator
from colbench_env.mini import UNKNOWN_REPLIES, keywords, make_tasks
from colbench_env.rollouts import RolloutPlan, play_all
from colbench_env.tasks import read_rows
from colbench_env.types import Trajectory

POINTS = 1000
TASKS, SAMPLES = 5, 2


def main() -> None:
    """Cuts between lines, without the last newline, in lines, in the middle of characters, at 0, and at random."""
    tasks, human, settings = make_tasks("test", TASKS, 0), ScriptedSimulator(keywords(), UNKNOWN_REPLIES), Settings()

    async def agent(episode):
        await asyncio.sleep(0)
        return episode.step_agent("How to round? é" if not episode.turns else "I WANT TO ANSWER: x = 1")

    async def play(task, sample):
        return make_trajectory(
            await play_async(settings.begin(task), agent, human, settings, sample), human, settings, sample
        )

    with tempfile.TemporaryDirectory() as folder:
        wanted = RolloutPlan(Path(folder, "rows.jsonl"), tasks, SAMPLES, settings.run_metadata(human))
        asyncio.run(play_all(wanted, play, 4))
        # Other tools write characters as they are: such a file can be cut off in the middle of one.
        ours = wanted.output.read_bytes()
        foreign = ours.decode().replace("\\u00e9", "é").encode()
        bad: Counter[str] = Counter()
        same = 0
        for number, (text, cut) in enumerate(places(ours, foreign)):
            wanted.output.write_bytes(text[:cut])
            asyncio.run(play_all(wanted, play, 1 + number % 7))
            found = Counter((row.task.task_id, row.extra["sample"]) for row in read_rows(wanted.output, Trajectory))
            bad["lost"] += len(set((task.task_id, sample) for task, sample in wanted.episodes) - set(found))
            bad["doubled"] += sum(found.values()) - len(found)
            same += wanted.output.read_bytes() == ours
    print(f"{POINTS} restarts of {TASKS * SAMPLES} episodes: {bad['lost']} lost, {bad['doubled']} doubled")
    print(f"files equal to the uninterrupted one: {same} of {POINTS} (ratio {same / POINTS:.3f})")


def places(ours: bytes, foreign: bytes) -> list[tuple[bytes, int]]:
    """POINTS cuts, every kind of place among them."""
    lines = [at + 1 for at, byte in enumerate(ours) if byte == 10]
    inside = [at for at, byte in enumerate(foreign) if 0x80 <= byte < 0xC0]
    cuts = [(ours, 0), (ours, 1), (ours, len(ours))]
    cuts += [(ours, at) for at in lines] + [(ours, at - 1) for at in lines] + [(foreign, at) for at in inside]
    chance = random.Random(0)
    while len(cuts) < POINTS:
        text = chance.choice((ours, foreign))
        cuts.append((text, chance.randrange(len(text))))
    return cuts


if __name__ == "__main__":
    main()
