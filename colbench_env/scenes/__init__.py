"""Toy ColBench: procedural tasks whose relevant questions depend on the task; see docs/toy.md.

`colbench_env.mini`, the miniature, is the older and simpler family: there "ask about every topic" is the best policy.
"""

from colbench_env.scenes.behaviour import SCENE_TURNS, behaviour_dialogue, behaviour_dialogues
from colbench_env.scenes.families import SETTINGS
from colbench_env.scenes.tasks import make_tasks
from colbench_env.scenes.topics import UNKNOWN_REPLIES

__all__ = ["UNKNOWN_REPLIES", "SCENE_TURNS", "behaviour_dialogue", "behaviour_dialogues", "keywords", "make_tasks"]


def keywords() -> dict[str, tuple[str, ...]]:
    """List what the scripted user simulator listens for: topic name -> phrases of a question."""
    return {topic.name: topic.keywords for setting in SETTINGS for topic in setting.family.topics}
