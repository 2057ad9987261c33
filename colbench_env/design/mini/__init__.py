"""Toy ColBench, frontend: procedural pages with a vague description, and scripted dialogues of mixed quality."""

from colbench_env.design.mini.behaviour import MINI_TURNS, Habits, page_behaviour_dialogues
from colbench_env.design.mini.pages import SPLITS, Look, make_page_tasks

__all__ = [
    "MINI_TURNS", "SPLITS", "Habits", "Look", "make_page_tasks", "page_behaviour_dialogues",
]  # fmt: skip
