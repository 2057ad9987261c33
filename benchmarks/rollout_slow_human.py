"""`python -m benchmarks.rollout_slow_human`: rollouts with a human that takes 200 ms a reply, and with an instant one.

Both play the same dialogues with the embedded model, 64 episodes in flight over fewer rows of one engine, in turns;
prints the median tokens a second of each and their ratio (aim: at least 0.85).
"""

import asyncio
import statistics
import tempfile
import time
from pathlib import Path

from colbench_env.episodes import Settings
from colbench_env.humans.scripted import ScriptedSimulator
from colbench_env.mini import UNKNOWN_REPLIES, keywords, make_tasks
from colbench_env.rollouts import RolloutPlan, play_all
from launch.common.settings import EMBEDDED_DIRECTORY
from sweet_jax.generation.load import load_engine
from sweet_jax.generation.sampling import Sampling
from sweet_jax.mesh import MeshShape
from sweet_jax.rollout.agent import EngineGenerator, EpisodeRunner

TASKS, IN_FLIGHT, ROWS, REPEATS, SLOW = 256, 64, 16, 3, 0.2


class Late(ScriptedSimulator):
    """The scripted human after a pause."""

    pause = 0.0

    async def reply(self, request):
        await asyncio.sleep(self.pause)
        return await super().reply(request)


def main() -> None:
    """Warms up with one run, then takes turns."""
    served = load_engine(EMBEDDED_DIRECTORY, MeshShape(1, 1), ROWS, max_length=512)
    tasks, settings, human = make_tasks("test", TASKS, 0), Settings(8, system=""), Late(keywords(), UNKNOWN_REPLIES)
    runner = EpisodeRunner(
        served.chat, EngineGenerator(served.engine, Sampling(max_new_tokens=48)), human, settings, max_prompt=400
    )
    tokens = 0

    async def play(task, sample):
        nonlocal tokens
        row = await runner.play(task, sample)
        tokens += sum(turn.extra["tokens"] for turn in row.agent_turns)
        return row

    def rate(pause: float, count: int) -> float:
        nonlocal tokens
        Late.pause, tokens = pause, 0
        with tempfile.TemporaryDirectory() as folder:
            wanted = RolloutPlan(Path(folder, "rows.jsonl"), tasks[:count], 1, settings.run_metadata(human))
            began = time.monotonic()
            asyncio.run(play_all(wanted, play, IN_FLIGHT))
            return tokens / (time.monotonic() - began)

    rate(0.0, IN_FLIGHT)
    rates = [(rate(0.0, TASKS), rate(SLOW, TASKS)) for _ in range(REPEATS)]
    served.engine.close()
    instant, slow = (statistics.median(column) for column in zip(*rates, strict=True))
    print(f"{TASKS} dialogues, {IN_FLIGHT} in flight, {ROWS} rows, medians of {REPEATS}")
    print(f"instant human: {instant:.0f} tokens a second; {SLOW * 1000:.0f} ms a reply: {slow:.0f}")
    print(f"ratio: {slow / instant:.2f}")


if __name__ == "__main__":
    main()
