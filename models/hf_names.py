"""What the tensors of a Hugging Face directory are called, and how each lies in its file."""

from dataclasses import dataclass

from models.config import LlamaConfig
from models.parameters import parameter_table
from models.weight_files import Stored

LAYER_TENSORS = {
    "layers/attention_norm": "input_layernorm",
    "layers/attention/q": "self_attn.q_proj",
    "layers/attention/k": "self_attn.k_proj",
    "layers/attention/v": "self_attn.v_proj",
    "layers/attention/o": "self_attn.o_proj",
    "layers/mlp_norm": "post_attention_layernorm",
    "layers/mlp/gate": "mlp.gate_proj",
    "layers/mlp/up": "mlp.up_proj",
    "layers/mlp/down": "mlp.down_proj",
    "layers/attention/q_norm": "self_attn.q_norm",
    "layers/attention/k_norm": "self_attn.k_norm",
}
LAYER_BIASES = {f"layers/attention/{name}_bias": f"self_attn.{name}_proj" for name in "qkv"}
OTHER_TENSORS = {"embedding": "model.embed_tokens", "final_norm": "model.norm", "lm_head": "lm_head"}


@dataclass(frozen=True)
class HfTensors:
    """File tensors of one parameter.

    names: one a layer where `stacked`, else a single one. shape: of each of them, as stored. transposed: stored
    [out, in].
    """

    names: tuple[str, ...]
    shape: tuple[int, ...]
    stacked: bool
    transposed: bool

    @property
    def file_shape(self) -> tuple[int, ...]:
        """The parameter's shape in the order of the files: [L, out, in], or [V, D]."""
        return (len(self.names), *self.shape) if self.stacked else self.shape

    @property
    def stored(self) -> tuple[Stored, ...]:
        """The tensors with their shapes."""
        return tuple(Stored(name, self.shape) for name in self.names)


def hf_layout(config: LlamaConfig) -> dict[str, HfTensors]:
    """Path -> HfTensors of every parameter of the table."""
    layout = {}
    for path, spec in parameter_table(config).items():
        stacked = path.startswith("layers/")
        own = spec.shape[1:] if stacked else spec.shape
        transposed = path == "lm_head" or (stacked and len(own) == 2)
        if stacked:
            tensor = f"{LAYER_BIASES[path]}.bias" if path in LAYER_BIASES else f"{LAYER_TENSORS[path]}.weight"
            names = tuple(f"model.layers.{layer}.{tensor}" for layer in range(config.num_layers))
        else:
            names = (f"{OTHER_TENSORS[path]}.weight",)
        layout[path] = HfTensors(names, own[::-1] if transposed else own, stacked, transposed)
    return layout
