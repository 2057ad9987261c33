import json

import pytest

from colbench_env.dialogue import BackendRules, Episode, chat_messages, marked_answer, shown_text
from colbench_env.prompts import load_prompt, prompt_names
from colbench_env.types import Message, Task, Trajectory

TASK = Task("Round a price.", "def f(x): return int(x)", {"test1": "f(1.5)"}, "rounding: Round down.")


def played(*texts, **settings):
    """The episode after these texts, agent and human in turn."""
    episode = Episode(TASK, **settings)
    for position, text in enumerate(texts):
        episode = episode.step_user(text) if position % 2 else episode.step_agent(text)
    return episode


def test_an_episode_opens_with_the_problem_and_waits_for_the_agent():
    episode = Episode(TASK)
    assert episode.messages == (Message("user", "Round a price."),)
    assert (episode.agent_is_next, episode.user_is_next, episode.done, episode.turns) == (True, False, False, 0)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("Up or down?", "Up or down?"),
        ("They hide the sign. OUTPUT: Up or down?", "Up or down?"),
        ("a OUTPUT: b OUTPUT: c", "b OUTPUT: c"),
        ("only a thought OUTPUT:", ""),
        ("output: lower case is text", "output: lower case is text"),
        ("I WANT TO ANSWER: print('OUTPUT: 3')", "I WANT TO ANSWER: print('OUTPUT: 3')"),
        ("Easy. OUTPUT: Here. I WANT TO ANSWER: x = 1", "Here. I WANT TO ANSWER: x = 1"),
    ],
)
def test_the_human_sees_what_follows_the_output_marker(raw, shown):
    assert shown_text(raw) == shown


@pytest.mark.parametrize(
    ("raw", "answer"),
    [
        ("I WANT TO ANSWER: x = 1", "x = 1"),
        ("Sure.\nI WANT TO ANSWER:\ndef f(x):\n    return x\n", "def f(x):\n    return x"),
        ("I WANT TO ANSWER: one I WANT TO ANSWER: two I WANT TO ANSWER: three", "one"),
        ("I WANT TO ANSWER: print('OUTPUT: 3')", "print('OUTPUT: 3')"),
        ("Thought. OUTPUT: I WANT TO ANSWER: x = 1", "x = 1"),
        ("I WANT TO ANSWER:  \n", "No answer"),
        ("I WANT TO ANSWER:I WANT TO ANSWER: two", "No answer"),
        ("I want to answer: x", None),
        ("May I answer?", None),
    ],
)
def test_the_answer_stands_between_the_first_marker_and_a_second(raw, answer):
    assert marked_answer(raw) == answer
    episode = Episode(TASK).step_agent(raw)
    assert (episode.answer, episode.done, episode.user_is_next) == (answer, answer is not None, answer is None)


def test_the_agent_knows_its_thoughts_and_the_human_does_not():
    episode = played("Sign? OUTPUT: Up or down?", "Down.")
    assert [message.content for message in episode.messages] == [
        "Round a price.",
        "Sign? OUTPUT: Up or down?",
        "Down.",
    ]
    assert [message.content for message in episode.shown_messages] == ["Round a price.", "Up or down?", "Down."]


def test_human_replies_are_cut_to_the_limit():
    reply = "0123456789" * 150
    assert played("Why?", reply).history[-1].content == reply[:400]
    assert played("Why?", reply, rules=BackendRules(1000)).history[-1].content == reply[:1000]
    assert played("Why?", reply[:400]).history[-1].content == reply[:400]


def test_at_the_last_of_ten_turns_the_whole_reply_is_the_answer():
    nine = ["Why?", "Because."] * 9
    episode = played(*nine)
    assert (episode.turns, episode.done) == (9, False)
    final = episode.step_agent("Well. OUTPUT: def f(x): return x\n")
    assert (final.turns, final.done, final.answer) == (10, True, "Well. OUTPUT: def f(x): return x")
    assert final.history[-1].content == "def f(x): return x"
    assert episode.step_agent("Fine. I WANT TO ANSWER: x = 1").answer == "x = 1"
    assert episode.step_agent(" \n").answer == "No answer"


def test_a_single_turn_episode_is_answered_at_once():
    assert played("def f(x): return x", max_turns=1).answer == "def f(x): return x"


def test_a_step_out_of_turn_is_refused():
    with pytest.raises(ValueError, match="the human cannot reply after 0 turns: it is the agent's turn"):
        Episode(TASK).step_user("Hello?")
    with pytest.raises(ValueError, match="the agent cannot write after 1 turns: it is the human's turn"):
        played("Why?", max_turns=3).step_agent("And?")
    done = played("I WANT TO ANSWER: x")
    with pytest.raises(ValueError, match="the agent cannot write after 1 turns: the episode is done"):
        done.step_agent("And?")
    with pytest.raises(ValueError, match="the human cannot reply after 1 turns: the episode is done"):
        done.step_user("Thanks.")
    with pytest.raises(ValueError, match="cannot be given up: the episode is done"):
        done.give_up()


def test_a_step_leaves_the_state_before_it_as_it_was():
    start = Episode(TASK)
    up, down = start.step_agent("Up?"), start.step_agent("Down?")
    assert (len(start.history), up.history[-1].content, down.history[-1].content) == (1, "Up?", "Down?")


def test_an_empty_human_reply_never_becomes_a_turn():
    with pytest.raises(ValueError, match="the human's reply is empty"):
        played("Why?").step_user(" \n")


def test_a_reply_of_which_the_limit_leaves_only_blanks_is_empty_too():
    with pytest.raises(ValueError, match="the human's reply is empty"):
        Episode(TASK).step_agent("Which sign?").step_user(" " * 400 + "Plus.")


def test_half_characters_are_replaced_wherever_text_comes_in():
    episode = (
        Episode(Task("Sum \ud83d up.", "x")).step_agent("Which \udc00? OUTPUT: \ud800?").step_user("Plus \udfff\ud83d.")
    )
    assert [message.content for message in episode.history] == ["Sum \ufffd up.", "\ufffd?", "Plus \ufffd\ufffd."]
    assert episode.history[1].output == "Which \ufffd? OUTPUT: \ufffd?"
    done = episode.step_agent("I WANT TO ANSWER: '\ud800'")
    assert done.answer == "'\ufffd'"
    assert "\\ud" not in json.dumps(done.to_trajectory().to_json()["dialogue_history"])


def test_a_limit_below_one_is_refused():
    with pytest.raises(ValueError, match="max_turns=0 and human_limit=400 must be at least 1"):
        Episode(TASK, max_turns=0)


def test_the_trajectory_has_the_released_layout():
    episode = Episode(TASK).step_agent("Sign? OUTPUT: Up?", prompt="<s>user: Round", extra={"token_ids": [5, 6]})
    episode = episode.step_user("Down.").step_agent("I WANT TO ANSWER: int")
    trajectory = episode.to_trajectory(extra={"human": "scripted"})
    assert trajectory.to_json() == {
        "task": TASK.to_json(),
        "dialogue_history": [
            {"role": "user", "content": "Round a price."},
            {
                "role": "assistant",
                "content": "Up?",
                "input": "<s>user: Round",
                "output": "Sign? OUTPUT: Up?",
                "token_ids": [5, 6],
            },
            {"role": "user", "content": "Down."},
            {
                "role": "assistant",
                "content": "I WANT TO ANSWER: int",
                "input": None,
                "output": "I WANT TO ANSWER: int",
            },
        ],
        "answer": "int",
        "human": "scripted",
    }
    assert Trajectory.from_json(trajectory.to_json(), "here") == trajectory


def test_an_episode_given_up_has_no_answer_and_ends_with_the_agent():
    for episode in (played("Why?"), played("Why?", "Because.")):
        trajectory = episode.give_up().to_trajectory()
        assert (trajectory.answer, [m.content for m in trajectory.dialogue_history]) == (
            "No answer",
            ["Round a price.", "Why?"],
        )


def test_an_episode_without_an_end_or_without_a_turn_is_no_trajectory():
    with pytest.raises(ValueError, match="an episode with 1 agent turns is no trajectory: it is the human's turn"):
        played("Why?").to_trajectory()
    with pytest.raises(ValueError, match="an episode with 0 agent turns is no trajectory: the episode is done"):
        Episode(TASK).give_up().to_trajectory()


def test_the_system_prompt_is_rendered_and_never_part_of_the_dialogue():
    episode = played("Why?")
    told = [{"role": "user", "content": "Round a price."}, {"role": "assistant", "content": "Why?"}]
    assert chat_messages(episode.messages, "Ask first.") == [{"role": "system", "content": "Ask first."}, *told]
    assert chat_messages(episode.messages, "") == told
    assert "system" not in [message.role for message in episode.history]


def test_the_agent_is_told_the_markers_that_the_protocol_reads():
    text = load_prompt("backend_agent", max_turns=10)
    assert "I WANT TO ANSWER:" in text and "OUTPUT:" in text
    assert "You have 10 messages in all." in text


def test_values_are_put_into_a_prompt_as_they_are():
    hidden = "cost = '$dialogue' + f'{x}' # \\1 $$"
    text = load_prompt("backend_human", hidden_information=hidden, dialogue="You: Hi.")
    assert f"<hidden>\n{hidden}\n</hidden>" in text
    assert "<conversation>\nYou: Hi.\n</conversation>" in text


def test_a_prompt_needs_exactly_its_fields():
    assert {"backend_agent", "backend_human"} <= set(prompt_names())
    with pytest.raises(ValueError, match=r"has the fields \['max_turns'\], given were \['turns'\]"):
        load_prompt("backend_agent", turns=3)
    with pytest.raises(ValueError, match="there is no prompt 'backend', there are: backend_agent, backend_human"):
        load_prompt("backend")
