"""Opens a checkpoint of this project with Hugging Face transformers and compares what the two give.

    python3 tests/python/opens_in_transformers.py data/models/tiny
    python3 tests/python/opens_in_transformers.py data/runs/tiny/iter-003/solver/checkpoint --run data/runs/tiny

Needs torch, transformers, safetensors and, for `--run`, pyarrow. What is held against what:

  always       AutoModelForCausalLM finds every tensor and no other; AutoTokenizer, where the folder has one, fits the model
  --expected   token ids, greedy texts and logits of a JSON that the tests hold against this project's own code: embedded.json (taken by
               itself for data/models/tiny), or a golden.json, of crates/rzero-model/tests/fixtures/transformers
  --run        every rollout of a run that was sampled from this checkpoint: the log-probabilities that the stages wrote, and their
               text. Asks this project's binaries themselves, for any checkpoint that a stage has sampled from

Prints what was compared and the worst difference; exit code 1 where something differs, or where nothing could be compared with.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).resolve().parents[2]
EMBEDDED = ROOT / "data/models/tiny"
EMBEDDED_EXPECTED = ROOT / "crates/rzero-model/tests/fixtures/transformers/embedded.json"
TOLERANCE = 1e-3  # of logits and log-probabilities, in nats


def open_folder(folder, failures):
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    for kind in ["missing_keys", "unexpected_keys", "mismatched_keys"]:
        if info[kind]:
            failures.append(f"{kind}: {sorted(map(str, info[kind]))}")
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{folder}: {type(model).__name__}, {num_parameters:,} parameters, {model.config.vocab_size} tokens")
    tokenizer = None
    if (folder / "tokenizer.json").is_file():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        if len(tokenizer) > model.config.vocab_size:
            failures.append(f"the tokenizer has {len(tokenizer)} tokens, the model {model.config.vocab_size}")
    return model.eval(), tokenizer


def expected_cases(path):
    """The cases of a JSON; one made for a model without a tokenizer is one case, with logits of several positions."""
    expected = json.loads(path.read_text())
    return expected["cases"] if "cases" in expected else [{**expected, "logits": expected["logits"][-1]}]


@torch.no_grad()
def compare_expected(model, tokenizer, cases, failures):
    worst = 0.0
    for case in cases:
        prompt = case["prompt"]
        name = repr(case.get("text", "the prompt"))
        if "text" in case and tokenizer(case["text"], add_special_tokens=False).input_ids != prompt:
            failures.append(f"{name}: other token ids")
        ids = torch.tensor([prompt])
        if "logits" in case:
            logits = model(ids).logits[0, -1]
            worst = max(worst, (logits - torch.tensor(case["logits"])).abs().max().item())
        greedy = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=len(case["greedy"]))
        written = greedy[0, len(prompt) :].tolist()
        text = tokenizer.decode(written) if tokenizer else written
        if written != case["greedy"]:
            failures.append(f"{name}: writes {text!r}, expected {case['greedy']}")
        print(f"  {name} -> {text!r}")
    print(f"  {len(cases)} prompts: worst difference of a logit {worst:.1e}")
    if not worst < TOLERANCE:
        failures.append(f"logits differ by {worst:.1e}")


def rollout_files(folder, run):
    """Tables of rollouts that were sampled from the checkpoint, by what the manifests of the run name as their inputs."""
    config = (folder / "config.json").resolve()
    for path in sorted(run.rglob("manifest-*.json")):
        manifest = json.loads(path.read_text())
        names = [record["path"] for record in manifest["inputs"]]
        is_sampled_from = any((base / name).resolve() == config for name in names for base in [run, ROOT])
        for record in manifest["outputs"]:
            if is_sampled_from and record["table"] == "rollouts":
                yield run / record["path"]


@torch.no_grad()
def compare_rollouts(model, tokenizer, paths, limit, failures):
    import pyarrow.parquet

    worst, num_rows, num_tokens = 0.0, 0, 0
    ends = model.generation_config.eos_token_id
    ends = {ends} if isinstance(ends, int) else set(ends or [])
    for path in paths:
        rows = pyarrow.parquet.read_table(path).slice(0, limit).to_pylist()
        for row in rows:
            prompt, written = row["prompt_tokens"], row["completion_tokens"]
            logits = model(torch.tensor([prompt + written])).logits[0, len(prompt) - 1 : -1]
            logprobs = logits.log_softmax(dim=-1).gather(1, torch.tensor(written)[:, None])[:, 0]
            worst = max(worst, (logprobs - torch.tensor(row["policy_logprobs"])).abs().max().item())
            shown = written[:-1] if written[-1] in ends else written
            text = tokenizer.decode(shown, clean_up_tokenization_spaces=False)
            if text != row["completion"]:
                failures.append(f"{path}: row {row['row']}: text {text!r}, expected {row['completion']!r}")
            if (written[-1] in ends) != (row["finish_reason"] == "stop"):
                failures.append(f"{path}: row {row['row']}: finish reason {row['finish_reason']} at token {written[-1]}")
            num_rows, num_tokens = num_rows + 1, num_tokens + len(written)
    print(f"  {num_rows} rollouts of {len(paths)} tables, {num_tokens} tokens: worst difference of a log-probability {worst:.1e}")
    if not worst < TOLERANCE:
        failures.append(f"log-probabilities differ by {worst:.1e}")
    return num_rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="checkpoint")
    parser.add_argument("--expected", type=Path, help="JSON with expected token ids, texts and logits")
    parser.add_argument("--run", type=Path, help="run directory whose rollouts were sampled from this checkpoint")
    parser.add_argument("--limit", type=int, default=200, help="rows that are read of each table (%(default)s)")
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    failures = []
    model, tokenizer = open_folder(arguments.folder, failures)
    expected = arguments.expected
    if expected is None and arguments.folder.resolve() == EMBEDDED:
        expected = EMBEDDED_EXPECTED
    num_compared = 0
    if expected is not None:
        cases = expected_cases(expected)
        compare_expected(model, tokenizer, cases, failures)
        num_compared += len(cases)
    if arguments.run is not None:
        paths = list(rollout_files(arguments.folder, arguments.run))
        num_compared += compare_rollouts(model, tokenizer, paths, arguments.limit, failures)
    if num_compared == 0:
        failures.append("nothing to compare with: give --expected or a --run with rollouts of this checkpoint")
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
