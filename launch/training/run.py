"""What the stages of a run share: its configuration, its directory, the mesh, the start model and its tokenizer."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from colbench_env.prompts import read_agent_prompt
from launch.common.benchmarks import Benchmark
from launch.common.console import Console, ShortLine
from launch.common.run_dir import RunDir
from launch.common.settings import start_model
from launch.common.stopping import defer_termination
from launch.training.config import TrainConfig
from launch.training.tracking.trackers import Trackers
from models.attention import AttentionName, check_kernel
from models.config import LlamaConfig
from models.hf_io import check_llama, load_llama
from models.inference import inference_params, inference_shardings
from models.llama import Llama
from models.lora import LoraConfig, init_lora, lora_shapes, merge_adapters
from models.parameters import param_shapes
from sweet_jax.data.chat import Chat, check_vocabulary
from sweet_jax.generation import Engine, Lockstep, LockstepEngine, Sampling
from sweet_jax.mesh import DeviceReport, MeshShape, local_copies, local_mesh, make_mesh
from sweet_jax.train.loop import Reporter, restore_params
from sweet_jax.train.step import merge_params


@dataclass(frozen=True)
class GivenCritic:
    """A critic that another run trained. directory: of that stage, or a Hugging Face directory; pairs: that the stage
    trained on, None for a Hugging Face directory."""

    directory: Path
    pairs: int | None


class Run:
    """One run of `launch.train`, or of `launch.rank`, which is given a critic. Models and the tokenizer are read when
    they are first needed and then kept."""

    def __init__(
        self,
        config: TrainConfig,
        directory: RunDir,
        console: Console,
        devices: DeviceReport,
        shape: MeshShape,
        benchmark: Benchmark,
        given_critic: GivenCritic | None = None,
        trackers: Trackers | None = None,
    ):
        self.config, self.directory, self.console = config, directory, console
        self.devices, self.shape, self.benchmark, self.given_critic = devices, shape, benchmark, given_critic
        self.trackers = trackers or Trackers(directory, console)
        self._start_params: Any = None  # for training
        self._start_laid_out: Any = None  # the same for the sampler

    @functools.cached_property
    def mesh(self) -> Mesh:
        return make_mesh(self.shape)

    @functools.cached_property
    def sampler_mesh(self) -> Mesh:
        """The devices while sampling: as in training, a sequence axis becoming rows, or all of them over rows."""
        if self.config.sampler_mesh == "rows":
            return make_mesh(MeshShape(self.shape.size, 1))
        return self.mesh if self.shape.sequence == 1 else make_mesh(self.shape.folded())

    @property
    def model_directory(self) -> Path:
        """Where the start policy lies as a Hugging Face directory."""
        return start_model(self.config.model, self.directory.path)

    @functools.cached_property
    def chat(self) -> Chat:
        return Chat.load(self.model_directory, datetime.date.fromisoformat(self.config.prompt_date))

    @functools.cached_property
    def llama_config(self) -> LlamaConfig:
        """The network. Whatever can be known to be wrong with its directory is raised here, before weights are read."""
        config = check_llama(self.model_directory, self.mesh)
        check_vocabulary(self.chat, config)
        if self.system:  # a template may refuse one, and says so only when it is rendered
            self.chat.check_system(self.system)
        return config

    @property
    def dtype(self) -> jnp.dtype:
        """What the network computes in."""
        return jnp.dtype(self.config.compute_dtype)

    @functools.cached_property
    def lora(self) -> LoraConfig | None:
        """The adapters that are trained, None where all weights are."""
        settings = self.config.lora
        return LoraConfig(settings.rank, settings.alpha, settings.targets) if settings.rank else None

    @property
    def start_params(self) -> Any:
        """The start policy's parameters, sharded for training; it is also every reference. float32, with LoRA in the
        dtype of the computation. Read from disk when needed and kept until `free_start_params`."""
        if self._start_params is None:
            dtype = self.dtype if self.lora else jnp.float32
            self._start_params = load_llama(self.model_directory, self.mesh, dtype).params
        return self._start_params

    def free_start_params(self) -> None:
        """Forgets the start policy's parameters, so that training has their room; they are read again when needed."""
        self._start_params = self._start_laid_out = None

    @property
    def trained_shapes(self) -> Any:
        """What critic and policy train, as sharded shapes: all weights, or adapters."""
        if self.lora is not None:
            return lora_shapes(self.llama_config, self.lora, self.mesh)
        return param_shapes(self.llama_config, self.mesh)

    def first_params(self) -> Any:
        """Give what training begins with. All weights are given away: the run itself keeps none of them."""
        self._start_laid_out = None
        if self.lora is not None:
            return init_lora(self.llama_config, self.lora, jax.random.key(self.config.seed), self.mesh)
        params = self.start_params
        self.free_start_params()
        return params

    @property
    def frozen_params(self) -> Any:
        """What training leaves as it is: under adapters the network, else nothing."""
        return self.start_params if self.lora is not None else {}

    @functools.cached_property
    def model(self) -> Llama:
        """The network on the training mesh."""
        config = self.config
        return Llama(self.llama_config, self.mesh, self.dtype, config.remat, attention=self.attention, lora=self.lora)

    @functools.cached_property
    def attention(self) -> AttentionName:
        """The attention kernel; "auto" is settled by the devices. Raises ModelError for one that they lack."""
        kernel, platform = self.config.attention, self.mesh.devices.flat[0].platform
        if kernel == "auto":
            on_gpu = platform == "gpu" and self.dtype == jnp.bfloat16 and self.shape.sequence == 1
            kernel = "splash" if platform == "tpu" else "cudnn" if on_gpu else "xla"
        check_kernel(kernel, self.mesh, self.dtype, self.config.remat)
        return kernel

    @functools.cached_property
    def system(self) -> str:
        """The agent's system prompt, empty for none."""
        return read_agent_prompt(self.config.agent_prompt, self.config.rollouts.max_turns)

    def policy_params(self, num_rows: int, step: int | None = None) -> Any:
        """Load the trained policy's weights, from that or the last checkpoint of its stage; adapters are merged in."""
        folder, training = self.directory.path / "policy", self.config.policy.training
        trained = restore_params(folder, self.trained_shapes, training, num_rows, step)
        lora = self.lora
        if lora is None:
            return trained
        return jax.jit(lambda params: merge_adapters(params, lora))(merge_params(self.start_params, trained))

    def _laid_out(self, params: Any) -> Any:
        """Move the parameters to the sampler's layout; matrices in the dtype in which they are read."""
        # Agent and human may both be the start policy: one copy serves both.
        if params is not self._start_params:
            return self._moved(params)
        if self._start_laid_out is None:
            self._start_laid_out = self._moved(params)
        return self._start_laid_out

    def _moved(self, params: Any) -> Any:
        return inference_params(params, self.llama_config, self.sampler_mesh, self.dtype)

    def sampling(self, temperature: float) -> Sampling:
        """How the agent's tokens are drawn."""
        settings = self.config.rollouts
        return Sampling(temperature, settings.top_k, settings.top_p, settings.max_new_tokens)

    def lockstep_engine(self, params: Any, lockstep: Lockstep | None = None) -> LockstepEngine:
        """Make an engine with these parameters on the devices of all processes, which have to ask it alike."""
        model = Llama(self.llama_config, self.sampler_mesh, self.dtype, remat="none")
        chat, rows = self.chat, self.config.rollouts.rows
        laid_out = self._laid_out(params)
        return LockstepEngine(model, laid_out, chat.end_ids, chat.pad_id, rows, self.max_length, lockstep)

    def engine(self, params: Any) -> Engine:
        """Make an engine with these parameters on the devices of this process, to be closed."""
        mesh = local_mesh(self.sampler_mesh)
        own = local_copies(self._laid_out(params), inference_shardings(self.llama_config, mesh, self.dtype))
        model = Llama(self.llama_config, mesh, self.dtype, remat="none")
        return Engine(model, own, self.chat.end_ids, self.chat.pad_id, self.config.rollouts.rows, self.max_length)

    @property
    def max_length(self) -> int:
        """The longest row that any stage of the run takes, and that the network was made for."""
        wanted = max(self.config.critic.training.max_length, self.config.policy.training.max_length)
        return min(wanted, self.llama_config.max_position_embeddings)

    def reporter(self, stage: str) -> Reporter:
        """Give the loop the console and the trackers; SIGTERM waits for the update under way and its checkpoint."""
        short = ShortLine(stage)

        def progress(done: int, total: int, line: str, values: Mapping[str, float]) -> None:
            self.console.progress(stage, done, total, line, short(done, total, values))
            if values:
                self.trackers.send_metrics(stage)

        return Reporter(progress, self.console.warn, defer_termination)

    def preference_arguments(self, stage: str) -> dict[str, Any]:
        """Return what `train_preference` needs of the run: the reference, what is trained, and where it is kept."""
        return {
            "reference": lambda: self.start_params,
            "pad_id": self.chat.pad_id,
            "directory": self.directory.stage(stage),
            "first": self.first_params,
            "shapes": self.trained_shapes,
            "frozen": self.frozen_params,
            "seed": self.config.seed,
            "stage": stage,
            "reporter": self.reporter(stage),
            "scored": lambda done, total: self.console.progress(f"{stage}: reference log-probs", done, total),
        }
