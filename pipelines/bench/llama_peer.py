"""What the benchmarks of llama.cpp share: model files made from ours, contexts, batches and samplers, through llama-cpp-python's ctypes functions.

The GGUF is written from the same model folder that ours reads, in f32, and brought into other formats by llama.cpp's own quantiser. It holds no
vocabulary: both sides are given token ids. Writes GGUF files into the folder it is told; nothing else.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gguf
import llama_cpp.llama_cpp as llama
import numpy as np
from safetensors import safe_open

FORMATS = {
    "f32": llama.LLAMA_FTYPE_ALL_F32,
    "f16": llama.LLAMA_FTYPE_MOSTLY_F16,
    "bf16": llama.LLAMA_FTYPE_MOSTLY_BF16,
    "q8_0": llama.LLAMA_FTYPE_MOSTLY_Q8_0,
    "q4_0": llama.LLAMA_FTYPE_MOSTLY_Q4_0,
    "q4_1": llama.LLAMA_FTYPE_MOSTLY_Q4_1,
}

# Hugging Face's names of one layer's matrices and norms, and GGUF's.
LAYER_NAMES = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}  # fmt: skip


@llama.llama_log_callback
def _silent(_level: int, _text: bytes, _data: Any) -> None:
    """llama.cpp says much."""


llama.llama_log_set(_silent, ctypes.c_void_p(0))
llama.llama_backend_init()


def permuted(matrix: np.ndarray, num_heads: int) -> np.ndarray:
    """Rows of a rotary projection in llama.cpp's order: neighbours are rotated together, not halves."""
    rows, columns = matrix.shape
    return matrix.reshape(num_heads, 2, rows // num_heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write_gguf(model: Path, path: Path) -> None:
    """An f32 GGUF of a folder of the Llama family."""
    config = json.loads((model / "config.json").read_text())
    if config["model_type"] != "llama":
        raise SystemExit(f"{model} is a {config['model_type']}; this bench writes GGUF for the Llama family only")
    heads, kv_heads = config["num_attention_heads"], config.get("num_key_value_heads", config["num_attention_heads"])
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    temporary = path.with_suffix(".partial")
    writer = gguf.GGUFWriter(temporary, "llama")
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(config.get("rope_theta") or config.get("rope_parameters", {}).get("rope_theta", 10_000.0))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_file_type(llama.LLAMA_FTYPE_ALL_F32)
    writer.add_tokenizer_model("no_vocab")
    with safe_open(model / "model.safetensors", framework="numpy") as file:
        for name in file.keys():  # noqa: SIM118 -- the file is no dict
            tensor = file.get_tensor(name).astype(np.float32)
            if name.startswith("model.layers."):
                _, _, layer, rest = name.split(".", 3)
                rest, kind = rest.rsplit(".", 1)
                if rest in ("self_attn.q_proj", "self_attn.k_proj"):
                    tensor = permuted(tensor, heads if rest == "self_attn.q_proj" else kv_heads)
                target = f"blk.{layer}.{LAYER_NAMES[rest]}.{kind}"
            else:
                target = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}.get(name, "output.weight")
            writer.add_tensor(target, np.ascontiguousarray(tensor))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    temporary.replace(path)


def model_file(model: Path, folder: Path, weights: str, threads: int) -> Path:
    """The model in one of the formats; made when it is asked for first."""
    folder.mkdir(parents=True, exist_ok=True)
    plain, path = folder / "f32.gguf", folder / f"{weights}.gguf"
    if not plain.is_file():
        write_gguf(model, plain)
    if not path.is_file():
        temporary = path.with_suffix(".partial")
        params = llama.llama_model_quantize_default_params()
        params.nthread, params.ftype = threads, FORMATS[weights]
        # Every matrix in the format that is named, so that the name is true; the head, which is the embedding, too.
        params.pure = True
        if llama.llama_model_quantize(str(plain).encode(), str(temporary).encode(), ctypes.byref(params)) != 0:
            raise SystemExit(f"llama.cpp cannot bring {plain} into {weights}")
        temporary.replace(path)
    return path


def load(path: Path) -> Any:
    params = llama.llama_model_default_params()
    params.n_gpu_layers = 0
    model = llama.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        raise SystemExit(f"llama.cpp cannot read {path}")
    return model


class Context:
    """A context for so many sequences of so many positions, and one batch that is filled again and again."""

    def __init__(self, model: Any, sequences: int, positions: int, threads: int, flash: bool, unified: bool, shared: int = 0):
        params = llama.llama_context_default_params()
        # A unified cache holds the shared beginning once; else each sequence has a cache of its own, of the longest one's size.
        own = -(-positions // 256) * 256
        params.n_ctx = -(-(shared + sequences * (positions - shared)) // 256) * 256 if unified else sequences * own
        params.n_batch, params.n_ubatch, params.n_seq_max = 2048, 512, sequences
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash else llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.kv_unified, params.no_perf = unified, True
        self.pointer = llama.llama_init_from_model(model, params)
        if not self.pointer:
            raise SystemExit(f"llama.cpp makes no context for {sequences} sequences of {positions} positions")
        self.memory = llama.llama_get_memory(self.pointer)
        self.batch = llama.llama_batch_init(2048, 0, 1)
        self.vocabulary = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))

    def clear(self) -> None:
        self.batch.n_tokens = 0

    def add(self, token: int, position: int, sequence: int, wants_logits: bool) -> int:
        """Puts one token into the batch; its index there."""
        batch, at = self.batch, self.batch.n_tokens
        batch.token[at], batch.pos[at], batch.n_seq_id[at], batch.logits[at] = token, position, 1, wants_logits
        batch.seq_id[at][0] = sequence
        batch.n_tokens = at + 1
        return at

    def decode(self) -> None:
        code = llama.llama_decode(self.pointer, self.batch)
        if code != 0:
            raise SystemExit(f"llama_decode stops with {code}")
        llama.llama_synchronize(self.pointer)

    def prefill(self, tokens: Sequence[int], sequence: int, start: int = 0) -> int:
        """Feeds a prompt; the index whose logits follow it."""
        last = -1
        for begin in range(0, len(tokens), 2048):
            self.clear()
            for at in range(begin, min(begin + 2048, len(tokens))):
                last = self.add(tokens[at], start + at, sequence, at + 1 == len(tokens))
            self.decode()
        return last

    def copy(self, source: int, target: int) -> None:
        """Gives a sequence the past of another one."""
        llama.llama_memory_seq_cp(self.memory, source, target, -1, -1)

    def forget(self, sequence: int, start: int = 0) -> None:
        llama.llama_memory_seq_rm(self.memory, sequence, start, -1)

    def logits(self, index: int) -> np.ndarray:
        return np.ctypeslib.as_array(llama.llama_get_logits_ith(self.pointer, index), (self.vocabulary,))

    def close(self) -> None:
        llama.llama_batch_free(self.batch)
        llama.llama_free(self.pointer)


def sampler(temperature: float, top_k: int, seed: int) -> Any:
    """llama.cpp's own chain: top-k, temperature, draw; or the most probable token."""
    chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
    if temperature == 0.0:
        llama.llama_sampler_chain_add(chain, llama.llama_sampler_init_greedy())
        return chain
    if top_k > 0:
        llama.llama_sampler_chain_add(chain, llama.llama_sampler_init_top_k(top_k))
    if temperature != 1.0:
        llama.llama_sampler_chain_add(chain, llama.llama_sampler_init_temp(temperature))
    llama.llama_sampler_chain_add(chain, llama.llama_sampler_init_dist(seed))
    return chain


def draw(context: Context, chain: Any, index: int) -> int:
    return llama.llama_sampler_sample(chain, context.pointer, index)
