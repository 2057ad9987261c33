"""How a dialogue ended, as its row tells."""

from colbench_env.dialogue import marked_answer
from colbench_env.types import Trajectory

OUT_OF_TURNS = "out of turns"


def ran_out_of_turns(row: Trajectory) -> bool:
    """Whether the agent had used all its turns without an answer, so that its last turn was graded as one, in vain.

    Rows tell how many turns there were (`rules`); of a row that does not, and of a page, of which the newest is the
    answer, it is not said.
    """
    rules = row.extra.get("rules")
    most = rules.get("max_turns") if isinstance(rules, dict) else None
    if not isinstance(most, int) or len(row.agent_turns) < most or not row.task.test_cases or row.reward != 0:
        return False
    last = row.agent_turns[-1]
    return marked_answer(last.content if last.output is None else last.output) is None
