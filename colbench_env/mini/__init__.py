"""Toy ColBench, backend: procedural tasks, a scripted simulator's words, scripted dialogues of mixed quality."""

from colbench_env.mini.behaviour import behaviour_dialogue, behaviour_dialogues
from colbench_env.mini.tasks import SPLITS, keywords, make_tasks
from colbench_env.mini.topics import UNKNOWN_REPLIES

MINI_TURNS = 8  # of the agent at most, where nothing else is said: a task has two to four hidden facts

__all__ = [
    "MINI_TURNS",
    "SPLITS",
    "UNKNOWN_REPLIES",
    "behaviour_dialogue",
    "behaviour_dialogues",
    "keywords",
    "make_tasks",
]
