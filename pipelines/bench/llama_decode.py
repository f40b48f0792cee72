"""llama.cpp's decoding, beside `decode batches` of crates/rzero-model/benches/decode.rs: n sequences side by side, a prompt of 64 tokens, 64 more each.

Prints a line of JSON for each batch and kind of attention. Time is that of decoding alone, the prompt apart: feeding the tokens, and drawing the
next ones at temperature 1 with llama.cpp's own sampler (`decode`); and the rate that it would be if drawing cost nothing (`decode-undrawn`).

    python3 pipelines/bench/llama_decode.py --model data/models/smollm2 --gguf FOLDER --weights bf16 --threads 2 --batches 1,8,32,64,128
    python3 pipelines/bench/llama_decode.py --greedy PROMPTS ...      the tokens themselves, to hold against ours
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as llama
from llama_peer import FORMATS, Context, draw, load, model_file, sampler


def measure(model: Any, batch: int, prompt: int, tokens: int, threads: int, flash: bool, unified: bool) -> dict[str, Any]:
    """All sequences continue the same prompt; unless the cache is unified each has a copy of it, and so they cost as much as different ones."""
    context = Context(model, batch, prompt + tokens + 1, threads, flash, unified, shared=prompt)
    chains = [sampler(1.0, 0, seed) for seed in range(batch)]
    last = context.prefill([100 + at * 7_919 % 40_000 for at in range(prompt)], 0)
    for sequence in range(1, batch):
        context.copy(0, sequence)
    drawn = [draw(context, chain, last) for chain in chains]
    decode_s = sample_s = 0.0
    cpu = time.process_time()
    for step in range(tokens):
        start = time.perf_counter()
        context.clear()
        for sequence, token in enumerate(drawn):
            context.add(token, prompt + step, sequence, True)
        context.decode()
        middle = time.perf_counter()
        drawn = [draw(context, chain, index) for index, chain in enumerate(chains)]
        decode_s += middle - start
        sample_s += time.perf_counter() - middle
    cpu_s = time.process_time() - cpu
    for chain in chains:
        llama.llama_sampler_free(chain)
    context.close()
    return {
        "value": batch * tokens / (decode_s + sample_s), "decode_s": decode_s, "sample_s": sample_s,
        "no_sampler": batch * tokens / decode_s, "sampler_share": sample_s / (decode_s + sample_s), "cpu_s": cpu_s,
    }  # fmt: skip


def greedy(model: Any, prompts: list[list[int]], tokens: int, threads: int) -> None:
    for prompt in prompts:
        context = Context(model, 1, len(prompt) + tokens, threads, flash=False, unified=False)
        chain = sampler(0.0, 0, 0)
        written = [draw(context, chain, context.prefill(prompt, 0))]
        while len(written) < tokens:
            written.append(draw(context, chain, context.prefill(written[-1:], 0, len(prompt) + len(written) - 1)))
        print(json.dumps(written), flush=True)
        llama.llama_sampler_free(chain)
        context.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of the model")
    parser.add_argument("--gguf", type=Path, required=True, help="folder for GGUF files")
    parser.add_argument("--weights", choices=sorted(FORMATS), required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--batches", default="1,8,32,64,128")
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--attention", default="flash", help="flash, plain, or both as flash,plain: flash is the faster one wherever it was tried")
    parser.add_argument("--cache", default="own", help="own, unified, or both as own,unified")
    parser.add_argument("--greedy", type=Path, help="file of prompts")
    args = parser.parse_args()
    model = load(model_file(args.model, args.gguf, args.weights, args.threads))
    if args.greedy:
        greedy(model, json.loads(args.greedy.read_text()), args.tokens, args.threads)
        return
    measure(model, 2, 16, 4, args.threads, True, False)
    for batch in map(int, args.batches.split(",")):
        for attention in args.attention.split(","):
            for cache in args.cache.split(","):
                figures = measure(model, batch, args.prompt, args.tokens, args.threads, attention == "flash", cache == "unified")
                line = {
                    "case": f"decode/{batch}", "setting": f"{args.weights}, {attention} attention, {cache} cache", "unit": "tokens/s",
                    "threads": args.threads, "batch": batch, "prompt": args.prompt, "tokens": args.tokens,
                }  # fmt: skip
                print(json.dumps(line | figures), flush=True)
                print(json.dumps(line | {"case": f"decode-undrawn/{batch}", "value": figures["no_sampler"]}), flush=True)


if __name__ == "__main__":
    main()
