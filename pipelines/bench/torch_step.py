"""The GRPO step of `crates/rzero-train/benches/step.rs` with PyTorch and transformers. Prints one line of JSON.

The same shapes and the same loss: clipped surrogate and k3 divergence from given old and reference log-probabilities, AdamW, clipping by the
gradient's norm. Logits are made for the completions only. All sequences are of one length, so nothing is padded and nothing is masked. Options
choose what is fastest on a machine: --attention eager|sdpa, --compile, --optimizer fused|foreach, --micro-batch SEQUENCES, --recompute.
"""

import argparse
import json
import os
import statistics
import time

parser = argparse.ArgumentParser()
parser.add_argument("--model", default="data/models/tiny")
parser.add_argument("--sequences", type=int, default=8)
parser.add_argument("--prompt", type=int, default=64)
parser.add_argument("--completion", type=int, default=64)
parser.add_argument("--steps", type=int, default=5)
parser.add_argument("--threads", type=int, default=0)
parser.add_argument("--micro-batch", type=int, default=0, help="sequences of a micro-batch; 0: all")
parser.add_argument("--attention", choices=["eager", "sdpa"], default="sdpa")
parser.add_argument("--optimizer", choices=["fused", "foreach"], default="fused")
parser.add_argument("--compile", action="store_true")
parser.add_argument("--recompute", action="store_true")
options = parser.parse_args()

# These steer libraries on other kinds of machine and mislead them here.
for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
    os.environ.pop(name, None)
threads = options.threads or os.cpu_count()
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)

import torch  # noqa: E402
import torch.nn.functional as functional  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

torch.set_num_threads(threads)
torch.manual_seed(1)
model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32, attn_implementation=options.attention)
model.train()
if options.recompute:
    model.gradient_checkpointing_enable({"use_reentrant": False})
model.config.use_cache = False
optimizer = torch.optim.AdamW(
    model.parameters(), lr=1e-6, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.01, **{options.optimizer: True}
)
vocabulary = model.config.vocab_size
length = options.prompt + options.completion
tokens = torch.randint(vocabulary, (options.sequences, length))  # (B, T)
old = torch.full((options.sequences, options.completion), -float(torch.log(torch.tensor(float(vocabulary)))))
reference = old.clone()
advantages = torch.tensor([1.0 if row % 2 == 0 else -1.0 for row in range(options.sequences)])
num_completion_tokens = options.sequences * options.completion


def logprobs(tokens):
    """Log-probability of every completion token. // tokens: (B, T), result: (B, C)"""
    hidden = model.model(input_ids=tokens, use_cache=False).last_hidden_state
    hidden = hidden[:, options.prompt - 1 : -1]
    logits = model.lm_head(hidden)
    targets = tokens[:, options.prompt :]
    loss = functional.cross_entropy(logits.reshape(-1, vocabulary), targets.reshape(-1), reduction="none")
    return -loss.view(targets.shape)


def objective(tokens, old, reference, advantages):
    """Sum of token losses over the tokens of the whole step."""
    new = logprobs(tokens)
    ratio = torch.exp((new - old).clamp(-20.0, 20.0))
    advantages = advantages[:, None]
    surrogate = torch.maximum(-advantages * ratio, -advantages * ratio.clamp(0.8, 1.3))
    surrogate = torch.where(advantages < 0, torch.minimum(surrogate, -advantages * 3.0), surrogate)
    log_ratio = (reference - new).clamp(-20.0, 20.0)
    k3 = (torch.exp(log_ratio) - log_ratio - 1.0).clamp(-10.0, 10.0)
    return (surrogate + 0.01 * k3).sum() / num_completion_tokens


if options.compile:
    objective = torch.compile(objective)

at_once = options.micro_batch or options.sequences
seconds, passes, updates = [], [], []
for step in range(options.steps + 1):
    start = time.perf_counter()
    total = 0.0
    for first in range(0, options.sequences, at_once):
        part = slice(first, first + at_once)
        loss = objective(tokens[part], old[part], reference[part], advantages[part])
        loss.backward()
        total += loss.item()
    middle = time.perf_counter()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    end = time.perf_counter()
    if step > 0:
        seconds.append(end - start)
        passes.append(middle - start)
        updates.append(end - middle)

with open("/proc/self/status", encoding="utf-8") as status:
    peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
print(
    json.dumps(
        {
            "library": f"torch {torch.__version__}",
            "model": options.model,
            "threads": threads,
            "mode": "full",
            "recompute": options.recompute,
            "attention": options.attention,
            "compile": options.compile,
            "optimizer": options.optimizer,
            "sequences": options.sequences,
            "prompt": options.prompt,
            "completion": options.completion,
            "seconds": seconds,
            "forward_backward_seconds": passes,
            "optimizer_seconds": updates,
            "tokens_per_second": options.sequences * length / statistics.median(seconds),
            "peak_bytes": peak,
            "loss": total,
            "gradient_norm": float(norm),
        }
    )
)
