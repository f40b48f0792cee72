"""The workload of a sampling stage on llama.cpp, as well as it can be done there: so many answers to each of so many questions, start to end.

What all prompts begin with is fed once; the rest of a prompt once for all its answers, which take it over by `llama_memory_seq_cp`. So many sequences run
side by side, and a finished one's place is taken by the next at once; the next prompt is fed together with the tokens of those that run. Beside
`decode workload` of crates/rzero-model/benches/decode.rs. Prints the seconds, and the tokens a second.

    python3 pipelines/bench/llama_workload.py --model data/models/smollm2 --gguf FOLDER --weights bf16 --threads 2 --file PROMPTS \\
        --samples 10 --tokens 96 --batch 64 --temperature 0.6 --top-k 40 --stops 2
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import llama_cpp.llama_cpp as llama
from llama_peer import FORMATS, Context, draw, load, model_file, sampler


def common_beginning(prompts: list[list[int]]) -> int:
    shortest = min(map(len, prompts)) - 1
    return next((at for at in range(shortest) if len({prompt[at] for prompt in prompts}) > 1), shortest)


class Answers:
    """Questions wait, answers run. Sequence 0 holds the common beginning; the two last ones the prompt in use and the next one, fed ahead of time."""

    def __init__(self, model: Any, prompts: list[list[int]], args: argparse.Namespace):
        self.prompts, self.args = prompts, args
        self.num_shared = common_beginning(prompts)
        longest = max(map(len, prompts)) + args.tokens
        self.context = Context(model, args.batch + 3, longest, args.threads, args.attention == "flash", args.cache == "unified", self.num_shared)
        self.free = list(range(args.batch, 0, -1))
        self.chains = [sampler(args.temperature, args.top_k, seed) for seed in range(args.batch + 1)]
        # sequence -> (token that goes in next, its position, tokens written)
        self.running: dict[int, tuple[int, int, int]] = {}
        # The question in use with how many of its answers wait, and the next one if its prompt has been fed.
        self.in_use, self.left, self.fed = -1, 0, -1
        self.lengths: list[int] = []
        self.sample_s = 0.0

    def holder(self, question: int) -> int:
        return self.args.batch + 1 + question % 2

    def admit(self) -> None:
        """Starts as many answers as there is room for; each begins by feeding the last token of its prompt."""
        while self.free and (self.left > 0 or self.fed >= 0):
            if self.left == 0:
                self.in_use, self.left, self.fed = self.fed, self.args.samples, -1
            sequence = self.free.pop()
            self.context.copy(self.holder(self.in_use), sequence)
            prompt = self.prompts[self.in_use]
            self.running[sequence] = (prompt[-1], len(prompt) - 1, 0)
            self.left -= 1

    def add_next_prompt(self) -> int:
        """Puts the next question's prompt, but for its last token, into the batch; its number, or -1."""
        question = self.in_use + 1
        if self.fed >= 0 or question >= len(self.prompts):
            return -1
        sequence = self.holder(question)
        self.context.forget(sequence)
        self.context.copy(0, sequence)
        for position in range(self.num_shared, len(self.prompts[question]) - 1):
            self.context.add(self.prompts[question][position], position, sequence, False)
        return question

    def take(self, sequence: int, index: int) -> None:
        """Draws a sequence's next token; ends it where it is over."""
        start = time.perf_counter()
        token = draw(self.context, self.chains[sequence], index)
        self.sample_s += time.perf_counter() - start
        _, position, written = self.running[sequence]
        self.running[sequence] = (token, position + 1, written + 1)
        if token in self.args.stops or written + 1 >= self.args.tokens:
            self.lengths.append(written + 1)
            del self.running[sequence]
            self.context.forget(sequence)
            self.free.append(sequence)

    def run(self) -> None:
        self.context.prefill(self.prompts[0][: self.num_shared], 0)
        while True:
            self.admit()
            self.context.clear()
            order = list(self.running.items())
            for sequence, (token, position, _) in order:
                self.context.add(token, position, sequence, True)
            question = self.add_next_prompt()
            if self.context.batch.n_tokens == 0 and question < 0:
                break
            if self.context.batch.n_tokens > 0:
                self.context.decode()
            if question >= 0:
                self.fed = question
            for index, (sequence, _) in enumerate(order):
                self.take(sequence, index)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--weights", choices=sorted(FORMATS), required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--file", type=Path, required=True, help="prompts: a list of lists of token ids")
    parser.add_argument("--questions", type=int, default=0, help="take so many of them; 0 takes all")
    parser.add_argument("--samples", type=int, required=True)
    parser.add_argument("--tokens", type=int, required=True, help="longest answer")
    parser.add_argument("--batch", type=int, required=True, help="sequences side by side")
    parser.add_argument("--temperature", type=float, required=True)
    parser.add_argument("--top-k", type=int, required=True)
    parser.add_argument("--stops", type=int, nargs="+", required=True, help="tokens that end an answer")
    parser.add_argument("--attention", choices=["flash", "plain"], default="flash")
    parser.add_argument("--cache", choices=["own", "unified"], default="own")
    args = parser.parse_args()
    model = load(model_file(args.model, args.gguf, args.weights, args.threads))
    prompts = json.loads(args.file.read_text())
    answers = Answers(model, prompts[: args.questions or None], args)
    start = time.perf_counter()
    answers.run()
    seconds = time.perf_counter() - start
    written = sum(answers.lengths)
    setting = f"{args.weights}, {args.batch} side by side, {args.attention} attention, {args.cache} cache"
    for case, value, unit in [("workload", seconds, "s"), ("workload-tokens", written / seconds, "tokens/s")]:
        line = {
            "case": case, "setting": setting, "value": value, "unit": unit, "threads": args.threads, "completions": len(answers.lengths),
            "tokens": written, "mean_tokens": written / len(answers.lengths), "sampler_share": answers.sample_s / seconds,
        }  # fmt: skip
        print(json.dumps(line), flush=True)
    for chain in answers.chains:
        llama.llama_sampler_free(chain)


if __name__ == "__main__":
    main()
