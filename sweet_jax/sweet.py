"""SWEET-RL (arXiv:2503.15478) as ten calls: load, play, grade, pair, train the critic, sample, rank, pair, train.

Each takes plain values, computes on the policy's mesh, and gives back what the next one takes. `launch.train` is the
same with files between the stages; both call the functions that stand below this module.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from colbench_env.episodes import EpisodeFailed, Settings, grade_trajectories
from colbench_env.grading import Grader
from colbench_env.humans import UserSimulator
from colbench_env.humans.scripted import ScriptedSimulator
from colbench_env.mini import UNKNOWN_REPLIES, keywords
from colbench_env.rollouts import play_into
from colbench_env.types import BadInput, Candidates, Ranked, Task, Trajectory
from models.hf_io import load_llama
from models.inference import inference_params
from models.llama import Llama
from models.parameters import flatten
from sweet_jax.data.batch import RowPair, most_turns
from sweet_jax.data.chat import Chat, check_vocabulary
from sweet_jax.data.token_rows import pair_rows, trajectory_row
from sweet_jax.export import export_trained
from sweet_jax.generation import LockstepEngine, Sampling
from sweet_jax.mesh import make_mesh, parse_mesh, start_devices
from sweet_jax.pairs import trajectory_pairs
from sweet_jax.ranking import Turn, TurnScorer, attach_scores, pair_turns
from sweet_jax.rollout.agent import EngineGenerator, EpisodeRunner
from sweet_jax.rollout.candidates import list_positions, sample_positions
from sweet_jax.train.objectives import PreferenceLoss
from sweet_jax.train.preferences import both_sides, train_preference
from sweet_jax.train.settings import Training
from sweet_jax.trajectory_pairs import Sample, select_pairs, tokenise_pair

EMBEDDED = {
    name: Path(__file__).parent / name for name in ("start_policy", "frontend_start_policy", "scenes_start_policy")
}
ROWS = 32  # turns that are sampled side by side


@dataclass(frozen=True)
class Policy:
    """A chat model on a mesh.

    model: the network. params: its parameters, sharded for training. chat: tokenizer and template. directory: the
    Hugging Face directory that it came from.
    """

    model: Llama
    params: Any
    chat: Chat
    directory: Path

    def save(self, directory: str | Path) -> None:
        """Write a Hugging Face directory, with the tokenizer of the one that the policy came from."""
        flat = flatten(self.params)
        export_trained(Path(directory), self.model.config, flat.__getitem__, flat["embedding"].dtype, self.directory)

    def engine(self, rows: int = ROWS, max_length: int = 2048) -> LockstepEngine:
        """Make an engine of `rows` rows of at most `max_length` tokens, or of as many as the network was made for."""
        config, mesh = self.model.config, self.model.mesh
        network = self.model.clone(remat="none", parent=None)
        params = inference_params(self.params, config, mesh, network.compute_dtype)
        length = min(max_length, config.max_position_embeddings)
        return LockstepEngine(network, params, self.chat.end_ids, self.chat.pad_id, rows, length)


def load_policy(directory: str | Path = "start_policy", mesh: str = "1x1", *, compute_dtype: str = "float32") -> Policy:
    """Load a Hugging Face directory of a Llama, or the start policy of the toy benchmark, which comes with the package.

    mesh: DATAxTENSOR devices; without an accelerator as many CPU devices are emulated, so load before other uses of
    jax. Raises BadInput and ModelError for what is wrong with either.
    """
    shape, path = parse_mesh(mesh), EMBEDDED.get(str(directory), Path(directory))
    start_devices(shape)
    devices = make_mesh(shape)
    chat, loaded = Chat.load(path), load_llama(path, devices, jnp.float32)
    check_vocabulary(chat, loaded.config)
    return Policy(Llama(loaded.config, devices, jnp.dtype(compute_dtype)), loaded.params, chat, path)


def play(
    policy: Policy,
    tasks: Sequence[Task],
    *,
    samples: int = 1,
    max_turns: int = 10,
    sampling: Sampling = Sampling(max_new_tokens=64),  # noqa: B008
    user: UserSimulator | None = None,
    system: str = "",
    seed: int = 0,
    rows: int = ROWS,
) -> list[Trajectory]:
    """Play `samples` episodes about each task: sample 0 of every task, then sample 1, ...; failed ones are left out.

    user: the user simulator; by default the scripted one of the toy benchmark. system: the agent's system prompt.
    Raises BadInput where a task leaves no room for a turn.
    """
    user = ScriptedSimulator(keywords(), UNKNOWN_REPLIES) if user is None else user
    engine = policy.engine(rows)
    settings = Settings(max_turns, system=system, seed=seed, retry_seconds=0.0)
    room = engine.max_length - sampling.max_new_tokens
    runner = EpisodeRunner(policy.chat, EngineGenerator(engine, sampling), user, settings, room)
    episodes = [(task, sample) for sample in range(samples) for task in tasks]
    played: dict[tuple[str, int], Trajectory] = {}

    def keep(result: Trajectory | EpisodeFailed) -> None:
        if isinstance(result, Trajectory):
            played[result.task.task_id, result.extra["sample"]] = result

    asyncio.run(play_into(None, episodes, runner.play, rows, keep))
    return [played[task.task_id, sample] for task, sample in episodes if (task.task_id, sample) in played]


def grade(trajectories: Sequence[Trajectory], workers: int = 2) -> list[Trajectory]:
    """Give each trajectory its reward: the fraction of its task's hidden tests that the answer passes, in a sandbox."""
    with Grader(workers=workers) as grader:
        return grade_trajectories(trajectories, grader)


def make_trajectory_pairs(
    policy: Policy, graded: Sequence[Trajectory], *, privileged: bool = True, system: str = ""
) -> list[RowPair]:
    """Pair a sample that passes all tests with every worse sample of its task, as token rows (section 4.1).

    privileged: the reference solution stands in front, for a critic that sees it.
    """
    samples = [Sample(f"trajectory {number}", row) for number, row in enumerate(graded)]
    pairs = select_pairs(samples, trajectory_pairs)
    tokenised = [tokenise_pair(better, worse, policy.chat, system, privileged) for better, worse in pairs]
    return [pair_rows(pair, policy.chat, False, f"pair {number}") for number, pair in enumerate(tokenised)]


def train_critic(
    policy: Policy,
    pairs: Sequence[RowPair],
    training: Training,
    directory: str | Path,
    *,
    beta: float = 0.1,
    nll_coef: float = 0.01,
    seed: int = 0,
) -> Policy:
    """Train the critic from the policy's weights: Bradley-Terry on turn-mean log-ratios (equations 2 and 3).

    directory: of checkpoints and metrics; run again with the same arguments to go on. Raises BadInput where there are
    no pairs, or one is longer than `training.max_length`.
    """
    loss = PreferenceLoss("turn-mean", beta, nll_coef)
    return _train(policy, pairs, loss, training, directory, seed, "critic")


def sample_candidates(
    policy: Policy,
    graded: Sequence[Trajectory],
    *,
    num_candidates: int = 16,
    sampling: Sampling = Sampling(max_new_tokens=64),  # noqa: B008
    privileged: bool = True,
    system: str = "",
    seed: int = 0,
    rows: int = ROWS,
) -> list[Candidates]:
    """Sample `num_candidates` turns in the place of each turn that was played (section 4.2)."""
    token_rows = [trajectory_row(row, policy.chat, system, f"trajectory {n}") for n, row in enumerate(graded)]
    return list(
        sample_positions(
            policy.engine(rows),
            list_positions(graded, token_rows),
            chat=policy.chat,
            sampling=sampling,
            num_candidates=num_candidates,
            seed=seed,
            privileged=privileged,
        )
    )


def rank(
    critic: Policy, reference: Policy, candidates: Sequence[Candidates], *, max_length: int = 8192, batch_size: int = 32
) -> list[Ranked]:
    """Give each candidate its advantage: the mean log-ratio of critic and reference over its tokens (equation 2).

    reference: the policy that the critic was trained from. max_length: tokens of a row; longer ones lose their begin.
    """
    turns = [Turn(place, tuple(ids)) for place, row in enumerate(candidates) for ids in row.extra["output_ids"]]
    length = min(max_length, critic.model.config.max_position_embeddings)
    scorer = TurnScorer(critic.model, critic.chat, max_length=length, batch_size=batch_size)
    scores = scorer.score(candidates, turns, critic=lambda: critic.params, reference=lambda: reference.params)
    return attach_scores(candidates, scores)


def make_turn_pairs(policy: Policy, ranked: Sequence[Ranked], *, num_pairs: int = 4, seed: int = 0) -> list[RowPair]:
    """Pair candidates of the upper half of each ranking with some of the lower half, without the reference solution."""
    pairs = pair_turns(ranked, policy.chat, num_pairs=num_pairs, seed=seed)
    return [pair_rows(pair, policy.chat, True, f"pair {number}") for number, pair in enumerate(pairs)]


def train_policy(
    policy: Policy,
    pairs: Sequence[RowPair],
    training: Training,
    directory: str | Path,
    *,
    beta: float = 0.1,
    nll_coef: float = 0.01,
    seed: int = 0,
) -> Policy:
    """Train the policy on turn pairs: DPO with the policy's start as reference (equation 4). As `train_critic`."""
    loss = PreferenceLoss("sum", beta, nll_coef)
    return _train(policy, pairs, loss, training, directory, seed, "policy")


def _train(
    policy: Policy,
    pairs: Sequence[RowPair],
    loss: PreferenceLoss,
    training: Training,
    directory: str | Path,
    seed: int,
    stage: str,
) -> Policy:
    if not pairs:
        raise BadInput(f"there are no pairs to train the {stage} on: play more samples of each task")
    params = train_preference(
        policy.model,
        pairs,
        reference=lambda: policy.params,
        loss=replace(loss, max_turns=most_turns(both_sides(pairs))),
        training=training,
        pad_id=policy.chat.pad_id,
        directory=Path(directory),
        seed=seed,
        stage=stage,
    )
    return replace(policy, params=params)
