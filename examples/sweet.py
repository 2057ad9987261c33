"""SWEET-RL in one file, to be read from top to bottom (arXiv 2503.15478).

    python examples/sweet.py           # two CPU cores, a few minutes; --help shows the settings

An agent has to write a Python function of which it is told only half. It must ask for the other half, one question a
turn, before it answers; the only reward is whether the answer passes ten hidden tests. Which question was a good one?
SWEET-RL trains a critic that may see the solution, and asks it:

    1. play     the start policy talks with a simulated user about each task, a few times      section 3 of the paper
    2. pair     a dialogue that solved its task is better than one that did not                section 4.1
    3. critic   learns the advantage of single turns from such pairs, seeing the solution      section 4.1, eq. 2 and 3
    4. rank     of 16 turns that the start policy might have written in the same place, those
                that the critic scores in the upper half are better than those in the lower    section 4.2
    5. policy   learns from these pairs of turns by DPO, never seeing the solution             section 4.2, eq. 4

Deviations from the paper:
  - The tasks are a toy (`colbench_env.mini`): six families of functions, two to four hidden facts each. The simulated
    user is a script that knows these facts and nothing else, not a language model. There is no system prompt.
  - The network has 1.2 million parameters, not 8 billion. So learning rates are 500 and 2000 times the paper's 2e-7; a
    dialogue has 8 turns at most, not 10, and a turn 32 tokens, not 1024; all is float32, not bfloat16.
  - 300 tasks with 4 dialogues each, not 5,000 with 3; candidates in the turns of 5 % of the dialogues, not of 10 %. The
    critic sees its pairs 2 times, not 4. Warm-up lasts 10 % of the updates, not 3 %.
  - The policy stops after 100 updates, not after one epoch: trained longer, so small a network forgets to answer.
  - Equal candidates are scored once and are never a pair; the paper does not say.

Deviations from the product (`python -m launch.train`), whose losses these are, to the last bit on the same log-probs:
  - Backend tasks and the paper's own variant only: turn means, a critic of log-ratios, a reference that sees the
    solution, NLL of the chosen turn. No baselines, no LoRA, no label smoothing, none of the released code's variants.
  - One device, and everything in memory: no mesh, checkpoints, files, resuming or report. No row is cut for length.
  - Less of everything than the product's toy preset: 300 tasks, not 800, and 200 held-out ones, not 300; batches of 8
    pairs, not 16; 2 epochs of the critic, not 3; candidates for 5 % of the dialogues, not 10 %. Warm-up as above.
  - The sampler reads the whole dialogue again in each turn (product: keeps its cache), stops at the end-of-turn token
    only (product: at every end token of the model), and draws with one key a batch (product: one a dialogue).
  - Log-probs go through all logits [B, T, V] at once (product: chunks of the vocabulary), which differs in the last
    bits; those of the reference are computed in each update (product: once, kept on disk).
  - Each row is computed from its first token, in the sampler, too (product: what rows begin with alike, once).
  - Rows are padded to multiples of 64 tokens, and an epoch's incomplete last batch is left out (product: filled up).

Names end in the axes of their arrays: B rows, P pairs, T tokens, K turns, V vocabulary, N new tokens, D hidden size.
"""

import functools
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from jax import Array
from jax.sharding import Mesh

import sweet_jax
from colbench_env.dialogue import Episode
from colbench_env.episodes import seed_of
from colbench_env.grading import Grader
from colbench_env.humans.scripted import ScriptedSimulator
from colbench_env.mini import UNKNOWN_REPLIES, keywords, make_tasks
from colbench_env.statistics import Estimate, bootstrap
from colbench_env.types import Task
from models.hf_io import load_llama
from models.inference import inference_params, next_logits
from models.kv_cache import init_cache
from models.llama import Llama, logits, variables
from sweet_jax.data.batch import TokenRow
from sweet_jax.data.chat import Chat, privileged_prefix


@dataclass(frozen=True)
class Settings:
    """Run SWEET-RL on toy tasks and print the success on held-out tasks before and after it."""

    model: Path = Path(sweet_jax.__file__).parent / "start_policy"
    """Hugging Face directory of the start policy."""
    seed: int = 42
    """Decides tasks, dialogues, candidates, pairs and batches."""
    num_tasks: int = 300
    """Tasks to play and to learn from."""
    samples: int = 4
    """Dialogues about each task."""
    max_turns: int = 8
    """Agent turns in a dialogue; the last one always counts as the answer."""
    max_new_tokens: int = 32
    """Tokens in an agent turn."""
    rows: int = 128
    """Turns that are sampled or scored side by side."""
    batch_size: int = 8
    """Pairs in one update."""
    beta: float = 0.1
    """Scale of the log-ratio in both losses."""
    nll_coef: float = 0.01
    """Weight of the negative log-likelihood of the chosen row in both losses."""
    critic_epochs: int = 2
    """Times that the critic sees each pair of dialogues."""
    critic_learning_rate: float = 4e-4
    """Peak learning rate of the critic."""
    data_fraction: float = 0.05
    """Share of the dialogues in whose turns candidates are sampled."""
    candidates: int = 16
    """Candidates for each of these turns."""
    num_pairs: int = 4
    """Pairs drawn from the candidates of a turn."""
    policy_learning_rate: float = 1e-4
    """Peak learning rate of the policy."""
    policy_steps: int = 100
    """Updates of the policy at most."""
    num_eval_tasks: int = 200
    """Held-out tasks, played before and after the training."""


# --- The start policy, and rows of tokens ----------------------------------------------------------------------------
# A row (TokenRow) is a dialogue as `ids` and `turns`: k for each token of agent turn k, 0 for what is not the agent's.
# Only the tokens with a turn number are actions: nothing else enters an advantage or a loss.


@dataclass(frozen=True)
class Lab:
    """Settings, network, chat template, and the start policy's parameters: pi_ref in every equation below."""

    settings: Settings
    model: Llama
    chat: Chat
    start: Any


def open_lab(settings: Settings) -> Lab:
    """Load the start policy onto one device."""
    mesh = Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("data", "tensor"))
    loaded = load_llama(settings.model, mesh)
    return Lab(settings, Llama(loaded.config, mesh, remat="none"), Chat.load(settings.model), loaded.params)


def pad_rows(rows: Sequence[TokenRow], pad_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Make tokens_bt and turn_bt, int32 [B, T]; T is a multiple of 64, so that few programs have to be compiled."""
    length = -(-max(map(len, rows)) // 64) * 64
    tokens_bt = np.full((len(rows), length), pad_id, np.int32)
    turn_bt = np.zeros((len(rows), length), np.int32)
    for b, row in enumerate(rows):
        tokens_bt[b, : len(row)], turn_bt[b, : len(row)] = row.ids, row.turns
    return tokens_bt, turn_bt


def batches_by_length(rows: Sequence[Any], size: int) -> Iterator[list[int]]:
    """Yield numbers of rows of like length, `size` at a time; the last batch repeats a row until it is full."""
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    for start in range(0, len(order), size):
        indices = order[start : start + size]
        yield indices + indices[-1:] * (size - len(indices))


# --- Sampling: read the prompt, then draw token after token ----------------------------------------------------------


@functools.partial(jax.jit, static_argnames=("model", "end_id", "max_new", "samples"))
def generate(
    model: Llama, params: Any, prompt_bt: Array, length_b: Array, key: Array, end_id: int, max_new: int, samples: int
) -> Array:
    """Draw at temperature 1 after right-padded prompts: ids [B * samples, N], `end_id` behind the end of a turn."""
    # Prefill: one pass over the prompts fills the cache, and the last token of each gives the first logits.
    params = inference_params(params, model.config, model.mesh, jnp.float32)
    prompt_bt, length_b = jnp.repeat(prompt_bt, samples, axis=0), jnp.repeat(length_b, samples)
    rows, length = prompt_bt.shape
    cache = init_cache(model.config, rows, length + max_new, model.mesh)
    output = model.apply(variables(params), prompt_bt, jnp.broadcast_to(jnp.arange(length), (rows, length)), cache)
    last_bd = output.hidden_btd[jnp.arange(rows), length_b - 1]
    logits_bv = next_logits(last_bd, params, model.config, model.mesh)

    # Decode: draw a token of every row, write it to the cache, get the next logits, until all rows have ended.
    def draw_token(state: Any) -> Any:
        step, cache, logits_bv, ids_bn, ended_b = state
        token_b = jax.random.categorical(jax.random.fold_in(key, step), logits_bv)
        token_b = jnp.where(ended_b, end_id, token_b).astype(jnp.int32)
        output = model.apply(variables(params), token_b[:, None], (length_b + step)[:, None], cache)
        logits_bv = next_logits(output.hidden_btd[:, 0], params, model.config, model.mesh)
        return step + 1, output.cache, logits_bv, ids_bn.at[:, step].set(token_b), ended_b | (token_b == end_id)

    ids_bn = jnp.full((rows, max_new), end_id, jnp.int32)
    state = (0, output.cache, logits_bv, ids_bn, jnp.zeros(rows, bool))
    return jax.lax.while_loop(lambda state: (state[0] < max_new) & ~state[4].all(), draw_token, state)[3]


def sample_turns(lab: Lab, params: Any, prompts: Sequence[list[int]], seed: int, samples: int = 1) -> list[Any]:
    """Sample agent turns after each prompt: for each a list of `samples` lists of ids, with the end-of-turn token."""
    end_id, turns = lab.chat.turn_end_id, [[]] * len(prompts)
    for number, indices in enumerate(batches_by_length(prompts, lab.settings.rows // samples)):
        rows = [lab.chat.row_from_turns(prompts[index], []) for index in indices]
        prompt_bt, length_b = pad_rows(rows, lab.chat.pad_id)[0], np.array([len(row) for row in rows])
        key = jax.random.fold_in(jax.random.key(seed), number)
        drawn_bn = generate(lab.model, params, prompt_bt, length_b, key, end_id, lab.settings.max_new_tokens, samples)
        drawn = [ids[: (ids + [end_id]).index(end_id) + 1] for ids in np.asarray(drawn_bn).tolist()]
        for place, index in enumerate(indices):
            turns[index] = drawn[place * samples : (place + 1) * samples]
    return turns


# --- Step 1, play: dialogues of a policy with the simulated user, and their rewards (section 3) ----------------------


@dataclass
class Dialogue:
    """A dialogue as text (`episode`), and as ids: those sampled are kept, never decoded and encoded again.

    turns: of each agent turn its ids, and the ids that follow: the user's reply and the header of the next turn.
    """

    episode: Episode
    prompt_ids: list[int]
    turns: list[tuple[list[int], list[int]]] = field(default_factory=list)
    reward: float = 0.0

    def ids_before(self, turn: int) -> list[int]:
        """Return o_t of the paper: all that the agent has read and written before its turn number `turn` (from 0)."""
        return self.prompt_ids + [token for ids, following in self.turns[:turn] for token in ids + following]


def play(lab: Lab, params: Any, tasks: Sequence[Task], seed: int) -> list[Dialogue]:
    """Play a dialogue about each task, all of them side by side, turn by turn; then grade the answers."""
    user = ScriptedSimulator(keywords(), UNKNOWN_REPLIES)
    episodes = [Episode(task, lab.settings.max_turns) for task in tasks]
    dialogues = [Dialogue(episode, lab.chat.prompt_ids(episode.messages)) for episode in episodes]
    for turn in range(lab.settings.max_turns):
        live = [dialogue for dialogue in dialogues if not dialogue.episode.done]
        prompts = [dialogue.ids_before(turn) for dialogue in live]
        sampled = sample_turns(lab, params, prompts, seed_of(seed, turn))
        for number, (dialogue, prompt, [ids]) in enumerate(zip(live, prompts, sampled, strict=True)):
            text, following = lab.chat.reply_text(ids), []
            dialogue.episode = dialogue.episode.step_agent(text)
            if not dialogue.episode.done:
                reply = user.say(dialogue.episode.task, text, seed_of(seed, turn, number))
                dialogue.episode = dialogue.episode.step_user(reply)
                following = lab.chat.continue_ids(prompt + ids, reply)
            dialogue.turns.append((ids, following))
    with Grader() as grader:  # an answer is a program that a language model wrote: it runs in a sandbox
        grades = grader.grade_many((dialogue.episode.task, dialogue.episode.answer) for dialogue in dialogues)
    for dialogue, grade in zip(dialogues, grades, strict=True):
        dialogue.reward = grade.reward  # the share of the tests that it passes
    return dialogues


# --- Log-probs and advantages (section 4.1) --------------------------------------------------------------------------


def token_logps(model: Llama, params: Any, tokens_bt: Array) -> Array:
    """Compute log pi(token t | tokens before t), float32 [B, T]; 0 in column 0, which nothing predicts."""
    position_bt = jnp.broadcast_to(jnp.arange(tokens_bt.shape[1]), tokens_bt.shape)
    hidden_btd = model.apply(variables(params), tokens_bt, position_bt).hidden_btd
    logp_btv = jax.nn.log_softmax(logits(hidden_btd[:, :-1], params, model.config, model.mesh))
    logp_bt = jnp.take_along_axis(logp_btv, tokens_bt[:, 1:, None], axis=-1)[..., 0]
    return jnp.pad(logp_bt, [(0, 0), (1, 0)])


def turn_advantages(log_ratio_bt: Array, turn_bt: Array, num_turns: int) -> Array:
    """Compute eq. 3, [B, K]: A(o_t, a_t, c) = mean over the tokens of turn t of log pi_theta - log pi_ref, given c.

    The mean keeps long turns comparable with short ones; with the sum the critic collapses (the paper's ablation).
    """
    member_btk = turn_bt[:, :, None] == jnp.arange(1, num_turns + 1)
    sum_bk = jnp.where(member_btk, log_ratio_bt[:, :, None], 0.0).sum(axis=1)
    return sum_bk / jnp.maximum(member_btk.sum(axis=1), 1)


# --- The loss of critic and policy: Bradley-Terry on the scores of two rows ------------------------------------------
# The two differ only in how the log-ratios of a row's tokens become its score.

TokenPair = tuple[TokenRow, TokenRow]  # chosen, rejected
Score = Callable[[Array, Array], Array]  # log_ratio_bt, turn_bt -> score_b


def critic_score(log_ratio_bt: Array, turn_bt: Array, num_turns: int) -> Array:
    """Score whole dialogues, eq. 2: the sum of the advantages of their turns."""
    return turn_advantages(log_ratio_bt, turn_bt, num_turns).sum(axis=1)


def policy_score(log_ratio_bt: Array, turn_bt: Array) -> Array:
    """Score single turns, eq. 4: log pi/pi_ref of the turn, a sum over its tokens as in DPO (arXiv 2305.18290)."""
    return jnp.where(turn_bt > 0, log_ratio_bt, 0.0).sum(axis=1)


def preference_loss(
    logp_bt: Array, ref_bt: Array, turn_bt: Array, score: Score, beta: float, nll_coef: float
) -> tuple[Array, Array]:
    """Compute -log sigmoid(beta (score of chosen - score of rejected)) + nll_coef x NLL of chosen, and the accuracy.

    Rows 0, 2, 4, ... are chosen; the row after each of them is the one rejected in its favour.
    """
    score_b = score(logp_bt - ref_bt, turn_bt)
    margin_p = beta * (score_b[0::2] - score_b[1::2])
    is_action_pt = turn_bt[0::2] > 0
    nll = -jnp.where(is_action_pt, logp_bt[0::2], 0.0).sum() / is_action_pt.sum()
    return -jax.nn.log_sigmoid(margin_p).mean() + nll_coef * nll, (margin_p > 0).mean()


# --- The training loop of critic and policy --------------------------------------------------------------------------


def train(lab: Lab, name: str, pairs: Sequence[TokenPair], score: Score, learning_rate: float, epochs: int = 1) -> Any:
    """Train the start policy's parameters to score the first row of each pair above the second."""
    settings, model = lab.settings, lab.model
    rng, size = np.random.default_rng(seed_of(settings.seed, name)), min(settings.batch_size, len(pairs))
    orders = [rng.permutation(len(pairs))[: len(pairs) // size * size] for _ in range(epochs)]
    plan = np.concatenate(orders).reshape(-1, size)  # numbers of the pairs of each update
    last = learning_rate / 10
    rate = optax.warmup_cosine_decay_schedule(last, learning_rate, len(plan) // 10, len(plan), last)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, b1=0.9, b2=0.95, weight_decay=0.0))

    @jax.jit
    def update(params: Any, opt_state: Any, reference: Any, tokens_bt: Array, turn_bt: Array) -> Any:
        ref_bt = token_logps(model, reference, tokens_bt)

        def loss(params: Any) -> tuple[Array, Array]:
            logp_bt = token_logps(model, params, tokens_bt)
            return preference_loss(logp_bt, ref_bt, turn_bt, score, settings.beta, settings.nll_coef)

        (value, accuracy), grads = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value, accuracy

    params, opt_state = lab.start, optimizer.init(lab.start)
    for step, indices in enumerate(plan, start=1):
        rows = [row for index in indices for row in pairs[index]]  # chosen, rejected, chosen, rejected, ...
        params, opt_state, value, accuracy = update(params, opt_state, lab.start, *pad_rows(rows, lab.chat.pad_id))
        if step % 20 == 0 or step in (1, len(plan)):
            print(f"  {name}: update {step} of {len(plan)}, loss {value:.3f}, accuracy {accuracy:.2f}", flush=True)
    return params


# --- Steps 2 and 3, pair and critic: what whole dialogues say about single turns (section 4.1) -----------------------


def show_solution(lab: Lab, dialogue: Dialogue, row: TokenRow) -> TokenRow:
    """Put the training-time information c in front of a row: for the critic and its reference, never for the policy."""
    return lab.chat.add_prefix(row, privileged_prefix(dialogue.episode.task.ground_truth))


def pair_dialogues(dialogues: Sequence[Dialogue]) -> Iterator[tuple[Dialogue, Dialogue]]:
    """Yield, of each task, the first dialogue that passed all tests with each one that did not."""
    by_task: dict[str, list[Dialogue]] = defaultdict(list)
    for dialogue in dialogues:
        by_task[dialogue.episode.task.task_id].append(dialogue)
    for samples in by_task.values():
        best = max(samples, key=lambda dialogue: dialogue.reward)
        if best.reward == 1.0:
            yield from ((best, other) for other in samples if other.reward < 1.0)


def train_critic(lab: Lab, dialogues: Sequence[Dialogue]) -> Any:
    """Train the critic: the language model itself, whose own log-probs are the advantage of eq. 3."""
    settings, pairs = lab.settings, []
    for both in pair_dialogues(dialogues):
        rows = [show_solution(lab, one, lab.chat.row_from_turns(one.prompt_ids, one.turns)) for one in both]
        pairs.append((rows[0], rows[1]))
    if not pairs:
        raise SystemExit("no task has both a solved dialogue and another: play more of them (--num-tasks, --samples)")
    score = functools.partial(critic_score, num_turns=settings.max_turns)
    return train(lab, "critic", pairs, score, settings.critic_learning_rate, settings.critic_epochs)


# --- Steps 4 and 5, rank and policy: better and worse turns in the same place (section 4.2) --------------------------


@functools.partial(jax.jit, static_argnames="model")
def score_turns(model: Llama, critic: Any, reference: Any, tokens_bt: Array, turn_bt: Array) -> Array:
    """Compute eq. 3 for rows in which a single turn counts, [B]; both terms see the solution."""
    log_ratio_bt = token_logps(model, critic, tokens_bt) - token_logps(model, reference, tokens_bt)
    return turn_advantages(log_ratio_bt, turn_bt, num_turns=1)[:, 0]


def draw_pairs(scores: Sequence[float], num_pairs: int, rng: random.Random) -> list[tuple[int, int]]:
    """Draw numbers of candidates: one from the upper half by score, and one from the lower half."""
    ranked, half = sorted(range(len(scores)), key=lambda index: -scores[index]), len(scores) // 2
    return [(rng.choice(ranked[:half]), rng.choice(ranked[-half:])) for _ in range(num_pairs)]


def pair_turns(lab: Lab, critic: Any, dialogues: Sequence[Dialogue]) -> list[TokenPair]:
    """Sample candidates in each place of some dialogues, rank them by the critic, and pair better with worse ones."""
    settings, chat, rng = lab.settings, lab.chat, random.Random(lab.settings.seed)
    used = dialogues[: max(1, round(settings.data_fraction * len(dialogues)))]
    places = [(dialogue, turn) for dialogue in used for turn in range(len(dialogue.turns))]
    prompts = [dialogue.ids_before(turn) for dialogue, turn in places]
    candidates = sample_turns(lab, lab.start, prompts, seed_of(settings.seed, "candidates"), settings.candidates)

    # Score what is different: in the same place many candidates are the same question.
    rows = {
        (place, tuple(ids)): chat.row_from_turns(prompts[place], [(ids, [])])
        for place, drawn in enumerate(candidates)
        for ids in drawn
    }
    shown = [show_solution(lab, places[place][0], row) for (place, _), row in rows.items()]
    scores = np.zeros(len(shown))
    for indices in batches_by_length(shown, settings.rows):
        batch = pad_rows([shown[index] for index in indices], chat.pad_id)
        scores[indices] = score_turns(lab.model, critic, lab.start, *batch)
    score_of = dict(zip(rows, scores.tolist(), strict=True))
    print(f"rank: {len(places)} places, {len(rows)} different candidates", flush=True)

    pairs = []
    for place, drawn in enumerate(candidates):
        keys = [(place, tuple(ids)) for ids in drawn]
        for better, worse in draw_pairs([score_of[key] for key in keys], settings.num_pairs, rng):
            if drawn[better] != drawn[worse]:
                pairs.append((rows[keys[better]], rows[keys[worse]]))
    rng.shuffle(pairs)
    return pairs[: settings.policy_steps * settings.batch_size]


# --- The whole: train, and play held-out tasks before and after ------------------------------------------------------


def evaluate(lab: Lab, name: str, params: Any) -> list[float]:
    """Play held-out tasks: 1.0 for each one solved, else 0.0; the same tasks and seeds for any policy."""
    tasks = make_tasks("test", lab.settings.num_eval_tasks, lab.settings.seed)
    dialogues = play(lab, params, tasks, seed_of(lab.settings.seed, "evaluation"))
    solved = [float(dialogue.reward == 1.0) for dialogue in dialogues]
    turns = sum(len(dialogue.turns) for dialogue in dialogues) / len(dialogues)
    print(f"{name}: success {percent(bootstrap(solved))}, {turns:.2f} turns a dialogue", flush=True)
    return solved


def percent(estimate: Estimate) -> str:
    """Format a mean with its 95 % interval, from a bootstrap over tasks."""
    return f"{100 * estimate.mean:.1f} % [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def main(settings: Settings) -> tuple[list[float], list[float]]:
    """Run SWEET-RL; return what each held-out task was worth before and after it."""
    clock, lab = time.perf_counter(), open_lab(settings)
    before = evaluate(lab, "start policy", lab.start)

    tasks = make_tasks("train", settings.num_tasks, settings.seed)
    dialogues = play(lab, lab.start, tasks * settings.samples, seed_of(settings.seed, "play"))
    critic = train_critic(lab, dialogues)
    pairs = pair_turns(lab, critic, dialogues)
    policy = train(lab, "policy", pairs, policy_score, settings.policy_learning_rate)

    after = evaluate(lab, "trained policy", policy)
    difference = bootstrap(new - old for old, new in zip(before, after, strict=True))
    print(f"difference: {percent(difference)}; {time.perf_counter() - clock:.0f} s")
    return before, after


if __name__ == "__main__":
    main(tyro.cli(Settings))
