"""One iteration of the embedded model with TRL's GRPOTrainer and transformers: the peer of ours_iteration.py.

The same model, prompts, numbers of questions, answers and steps, lengths and rates as pipelines/profiles/tiny.toml:

  Challenger   5 steps; 64 questions to one prompt, one group; 8 answers each by the frozen model through `generate`; majority vote, and the
               repetition penalty as the original does it (NLTK's sentence BLEU, scikit-learn's average linkage)
  curriculum   1,200 questions and 32 answers to each through `generate`, vote and band
  Solver       35 steps of 64 questions x 8 answers; an answer earns 1 where it is the majority's

A part of the curriculum's questions, and of the Solver's steps if so asked, is measured and scaled by their numbers; `setting` says how much. The first
step of a trainer, which is slower than the others, counts once. Imports and loading do not count. The questions of the Solver phase are those that
the band kept, repeated where there are too few.

    python3 pipelines/bench/trl_iteration.py --threads 2 --solver-steps 35 --part 0.25
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import tempfile
import time
import tomllib
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from sklearn.cluster import AgglomerativeClustering
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from transformers.utils import logging
from trl import GRPOConfig, GRPOTrainer

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "data/models/tiny"
CHALLENGER_PROMPT = "<bos><challenger>"
SOLVER_PROMPT = "<bos><solver><question>{}</question>"
QUESTION = re.compile(r"<question>([^<>]{1,26})</question>\\boxed\{([^}]*)\}")
BOXED = re.compile(r"\\boxed\{(-?[0-9]+)\}")

logging.set_verbosity_error()
logging.disable_progress_bar()
warnings.filterwarnings("ignore", category=FutureWarning)


def tokenizer() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_file=str(MODEL / "tokenizer.json"), pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", padding_side="left"
    )


def text_of(ids: list[int], words: PreTrainedTokenizerFast) -> str:
    return words.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


class Sampler:
    """`generate` for many prompts, so many sequences at a time, at temperature 1."""

    def __init__(self, words: PreTrainedTokenizerFast, batch: int):
        self.model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()
        self.words, self.batch = words, batch
        self.num_tokens = 0

    @torch.inference_mode()
    def complete(self, prompts: list[str], samples: int, tokens: int) -> list[list[str]]:
        """So many completions of each prompt, as text with its tags."""
        at_a_time = max(1, self.batch // samples)
        # Prompts of a like length side by side: less padding.
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        texts: dict[int, list[str]] = {}
        for start in range(0, len(order), at_a_time):
            chosen = order[start : start + at_a_time]
            inputs = self.words([prompts[index] for index in chosen], return_tensors="pt", padding=True, add_special_tokens=False)
            written = self.model.generate(
                input_ids=inputs.input_ids, attention_mask=inputs.attention_mask, do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
                max_new_tokens=tokens, num_return_sequences=samples, pad_token_id=0, eos_token_id=2,
            )[:, inputs.input_ids.shape[1] :]  # fmt: skip
            for row, ids in enumerate(written.tolist()):
                ids = ids[: ids.index(2)] if 2 in ids else ids
                self.num_tokens += len(ids)
                texts.setdefault(chosen[row // samples], []).append(text_of(ids, self.words))
        return [texts[index] for index in range(len(prompts))]


def vote(answers: list[str]) -> tuple[str | None, float]:
    """The majority's answer and its share."""
    found = Counter(match[-1] for match in (BOXED.findall(answer) for answer in answers) if match)
    if not found:
        return None, 0.0
    answer, count = found.most_common(1)[0]
    return answer, count / len(answers)


def repetition(questions: list[str]) -> list[float]:
    """The share of the batch that is like each question, as in the original: BLEU of every pair, clusters of average linkage."""
    if len(questions) < 2:
        return [1.0] * len(questions)
    smoothing, split = SmoothingFunction().method1, [list(question) for question in questions]
    distances = [[0.0] * len(questions) for _ in questions]
    for i, hypothesis in enumerate(split):
        for j in range(i + 1, len(split)):
            distances[i][j] = distances[j][i] = 1 - sentence_bleu([split[j]], hypothesis, smoothing_function=smoothing)
    clusters = AgglomerativeClustering(n_clusters=None, distance_threshold=0.5, metric="precomputed", linkage="average")
    labels = clusters.fit_predict(distances).tolist()
    sizes = Counter(labels)
    return [sizes[label] / len(questions) for label in labels]


class Clock(TrainerCallback):
    """When each step ended."""

    def __init__(self) -> None:
        self.ends = [time.perf_counter()]

    def on_train_begin(self, *_args: Any, **_kwargs: Any) -> None:
        self.ends = [time.perf_counter()]

    def on_step_end(self, *_args: Any, **_kwargs: Any) -> None:
        self.ends.append(time.perf_counter())

    def seconds(self, steps: int) -> float:
        """Of so many steps: the first as it was, the others by their median."""
        each = [end - start for start, end in zip(self.ends, self.ends[1:])]
        if len(each) == steps:
            return sum(each)
        return each[0] + (steps - 1) * statistics.median(each[1:] or each)


def train(rewards: Any, prompts: Dataset, generations: int, batch: int, micro: int, tokens: int, steps: int) -> Clock:
    """So many steps of GRPOTrainer with the rates of the profile."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        settings = GRPOConfig(
            output_dir=folder, use_cpu=True, bf16=False, fp16=False, gradient_checkpointing=False, report_to=[], save_strategy="no",
            logging_strategy="no", disable_tqdm=True, max_steps=steps, per_device_train_batch_size=micro,
            gradient_accumulation_steps=batch // micro, num_generations=generations, max_completion_length=tokens, temperature=1.0,
            top_p=1.0, top_k=0, beta=1e-2, epsilon=0.2, epsilon_high=0.3, num_iterations=1, learning_rate=2e-4,
            lr_scheduler_type="constant", adam_beta1=0.9, adam_beta2=0.99, weight_decay=1e-2, max_grad_norm=1.0, shuffle_dataset=False,
            dataloader_pin_memory=False,
        )  # fmt: skip
        trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32), reward_funcs=rewards, args=settings,
            train_dataset=prompts, processing_class=tokenizer(), callbacks=[clock],
        )  # fmt: skip
        trainer.train()
    return clock


def challenger_phase(profile: dict[str, Any], solver: Sampler, micro: int) -> float:
    words = solver.words
    settings = profile["challenger"]

    def rewards(completion_ids: list[list[int]], **_: Any) -> list[float]:
        matches = [QUESTION.search(text_of(ids, words)) for ids in completion_ids]
        rows = [row for row, match in enumerate(matches) if match]
        questions = [match[1] for match in matches if match]
        asked = [SOLVER_PROMPT.format(question) for question in questions]
        answers = solver.complete(asked, settings["num_samples"], settings["answer_sampling"]["max_tokens"]) if asked else []
        values = [0.0] * len(matches)
        for row, texts, share in zip(rows, answers, repetition(questions)):
            values[row] = max(0.0, 1 - 2 * abs(vote(texts)[1] - 0.5) - settings["repetition_weight"] * share)
        return values

    count, steps = settings["num_questions"], settings["steps"]
    prompts = Dataset.from_dict({"prompt": [CHALLENGER_PROMPT] * (count * steps)})
    tokens = settings["question_sampling"]["max_tokens"]
    return train(rewards, prompts, count, count, min(micro, count), tokens, steps).seconds(steps)


def curriculum_phase(profile: dict[str, Any], solver: Sampler, part: float) -> tuple[float, list[tuple[str, str]]]:
    """Seconds, scaled to all questions, and the questions that were kept with their labels."""
    settings = profile["curriculum"]
    count = max(1, round(settings["num_candidates"] * part))
    start = time.perf_counter()
    written = solver.complete([CHALLENGER_PROMPT], count, settings["question_sampling"]["max_tokens"])[0]
    questions = [match[1] for match in map(QUESTION.search, written) if match]
    asked = [SOLVER_PROMPT.format(question) for question in questions]
    answers = solver.complete(asked, settings["num_samples"], settings["answer_sampling"]["max_tokens"])
    band = settings["bands"][0]
    votes = [(question, *vote(texts)) for question, texts in zip(questions, answers)]
    kept = [(question, label) for question, label, share in votes if label and band["low"] <= share <= band["high"]]
    return (time.perf_counter() - start) / count * settings["num_candidates"], kept


def solver_phase(profile: dict[str, Any], kept: list[tuple[str, str]], measured: int, micro: int, words: PreTrainedTokenizerFast) -> Clock:
    settings = profile["solver"]

    def rewards(completion_ids: list[list[int]], label: list[str], **_: Any) -> list[float]:
        answers = [BOXED.findall(text_of(ids, words)) for ids in completion_ids]
        return [float(bool(answer) and answer[-1] == right) for answer, right in zip(answers, label)]

    count = settings["num_questions"]
    chosen = [kept[at % len(kept)] for at in range(count * measured)]
    prompts = Dataset.from_dict({"prompt": [SOLVER_PROMPT.format(question) for question, _ in chosen], "label": [label for _, label in chosen]})
    batch = count * settings["group_size"]
    return train(rewards, prompts, settings["group_size"], batch, min(micro, batch), settings["sampling"]["max_tokens"], measured)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--solver-steps", type=int, default=35, help="how many of the Solver's steps are measured")
    parser.add_argument("--part", type=float, default=0.25, help="share of the curriculum's questions that is measured")
    parser.add_argument("--batch", type=int, default=512, help="sequences that `generate` is given at a time")
    parser.add_argument("--micro", type=int, default=128, help="sequences of one backward pass")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(21)
    profile = tomllib.loads((ROOT / "pipelines/profiles/tiny.toml").read_text())
    words = tokenizer()
    solver = Sampler(words, args.batch)
    challenger = challenger_phase(profile, solver, args.micro)
    curriculum, kept = curriculum_phase(profile, solver, args.part)
    clock = solver_phase(profile, kept or [("1+1", "2")], args.solver_steps, args.micro, words)
    steps = profile["solver"]["steps"]
    whole = challenger + curriculum + clock.seconds(steps)
    setting = f"{args.solver_steps} of {steps} Solver steps, {args.part:g} of the curriculum"
    common = {"setting": setting, "unit": "s", "threads": args.threads, "phases": {"challenger": challenger, "curriculum": curriculum, "solver": clock.seconds(steps)}}
    print(json.dumps({"case": "iteration", "value": whole} | common), flush=True)
    print(json.dumps({"case": "solver-step", "value": clock.seconds(steps) / steps} | common), flush=True)


if __name__ == "__main__":
    main()
