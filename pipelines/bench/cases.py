"""What is measured (experiments: commands of ours and of a peer, interleaved) and what is read from it (cases: one row of the table each).

Words in braces within a command are filled in by `run.py`: `{decode}`, `{step}`, ... executables of the benches, `{bin}` the folder of the stage
binaries, `{python}` the Python of the peers, `{model}` and `{tiny}` model folders, `{threads}`, `{here}` this folder, `{cache}` what is made once,
`{just}` the program of that name.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Command:
    """One process. `modules` are Python modules of the peers without which it cannot run, `paths` files that it reads."""

    name: str
    argv: tuple[str, ...]
    modules: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    threads: int = 0
    # For a program that prints objects of figures: (field, case, unit, factor). The setting is the object's `name`, or that of the command.
    reads: tuple[tuple[str, str, str, float], ...] = ()


@dataclass(frozen=True)
class Experiment:
    """Commands that are run in turn, ours before the peer's, so many rounds."""

    name: str
    title: str
    ours: tuple[Command, ...]
    peer: tuple[Command, ...] = ()
    rounds: int = 3
    # Replaced in each command where less is to be measured (`--quick`).
    quick: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Lines:
    """Which printed lines count: their case, and a pattern that their setting holds."""

    case: str
    setting: str = ""


@dataclass(frozen=True)
class Target:
    """What is asked: a ratio at least, or our own figure at most or at least. Nothing where nothing is asked."""

    ratio: float | None = None
    at_most: float | None = None
    at_least: float | None = None

    def as_json(self) -> dict[str, float] | None:
        return {name: value for name, value in vars(self).items() if value is not None} or None

    def is_met(self, ours: float | None, ratio: float | None) -> bool | None:
        if self.ratio is not None:
            return None if ratio is None else ratio >= self.ratio
        if ours is None or self.as_json() is None:
            return None
        return (self.at_most is None or ours <= self.at_most) and (self.at_least is None or ours >= self.at_least)


@dataclass(frozen=True)
class Case:
    """One row: the best setting of ours against the best of the peer's."""

    name: str
    title: str
    experiment: str
    unit: str
    ours: Lines
    peer: Lines | None = None
    peer_name: str | None = None
    target: Target = field(default_factory=Target)
    threads: int = 0
    # Ours may be held against another figure of ours.
    peer_side: str = "peer"


LLAMA = "llama.cpp"
BATCHES = (1, 8, 32, 64, 128)


def decode_ours(weights: str, prompts: str, batches: str) -> Command:
    flags = ("--prompt", "64", "--tokens", "64", "--batches", batches, "--prompts", prompts)
    return Command(
        f"ours-{weights}-{prompts}",
        ("{decode}", "batches", "--model", "{model}", "--threads", "{threads}", "--weights", weights, *flags),
        paths=("{model}/config.json",),
    )


def decode_peer(weights: str) -> Command:
    flags = ("--threads", "{threads}", "--batches", "1,8,32,64,128")
    return Command(
        f"llama-{weights}",
        ("{python}", "{here}/llama_decode.py", "--model", "{model}", "--gguf", "{cache}/gguf", "--weights", weights, *flags),
        modules=("llama_cpp", "gguf", "safetensors"),
        paths=("{model}/config.json",),
    )


WORKLOAD = ("--samples", "10", "--tokens", "96", "--temperature", "0.6", "--top-k", "40", "--file", "{cache}/prompts.json")


def workload_ours(weights: str) -> Command:
    flags = ("--threads", "{threads}", "--weights", weights, "--batch", "64", *WORKLOAD)
    return Command(f"ours-{weights}", ("{decode}", "workload", "--model", "{model}", *flags), paths=("{model}/config.json",))


def workload_peer(weights: str, cache: str) -> Command:
    flags = ("--threads", "{threads}", "--weights", weights, "--batch", "64", "--cache", cache, "--stops", "2", *WORKLOAD)
    return Command(
        f"llama-{weights}-{cache}",
        ("{python}", "{here}/llama_workload.py", "--model", "{model}", "--gguf", "{cache}/gguf", *flags),
        modules=("llama_cpp", "gguf", "safetensors"),
        paths=("{model}/config.json",),
    )


Reads = tuple[tuple[str, str, str, float], ...]


def bench_python(name: str, script: str, *flags: str, modules: tuple[str, ...], threads: int = 0, reads: Reads = ()) -> Command:
    return Command(name, ("{python}", "{here}/" + script, *flags), modules=modules, threads=threads, reads=reads)


def table_figures(stage: str) -> Reads:
    return (("seconds", stage, "s", 1.0), ("peak_bytes", f"{stage}-memory", "MB", 1e-6))


TORCH = ("torch", "transformers", "safetensors")
STEP_FIGURES = (("tokens_per_second", "train-step", "tokens/s", 1.0), ("peak_bytes", "train-memory", "MB", 1e-6))
STEP_SIZES = {"{model}": ("--sequences", "8", "--prompt", "64", "--completion", "64"), "{tiny}": ("--sequences", "64", "--prompt", "32", "--completion", "32")}


def step_command(name: str, program: tuple[str, ...], model: str, *flags: str, modules: tuple[str, ...] = ()) -> Command:
    argv = (*program, "--model", model, "--threads", "{threads}", *STEP_SIZES[model], *flags)
    return Command(name, argv, modules=modules, paths=(model + "/config.json",), reads=STEP_FIGURES)


def torch_steps(model: str) -> tuple[Command, ...]:
    program = ("{python}", "{here}/torch_step.py")
    kinds = {"sdpa": (), "eager": ("--attention", "eager"), "sdpa, compiled": ("--compile",)}
    return tuple(step_command(f"torch, {kind}", program, model, *flags, modules=TORCH) for kind, flags in kinds.items())


EXPERIMENTS = (
    Experiment(
        "decode",
        "tokens a second after a prompt of 64 tokens, 64 more each",
        ours=(
            Command("peak", ("{decode}", "peak", "--threads", "{threads}")),
            *(decode_ours(weights, "shared", "1,8,32,64,128") for weights in ("f32", "bf16", "q8")),
            *(decode_ours(weights, "own", "64") for weights in ("f32", "bf16", "q8")),
        ),
        peer=tuple(decode_peer(weights) for weights in ("q4_0", "f16", "f32", "q8_0", "bf16")),
        quick=(("1,8,32,64,128", "8"), ("64", "8")),
    ),
    Experiment(
        "workload",
        "10 answers to each of 200 questions",
        ours=tuple(workload_ours(weights) for weights in ("bf16", "f32", "q8")),
        peer=(*(workload_peer(weights, "own") for weights in ("q4_0", "f16", "bf16")), workload_peer("q4_0", "unified")),
        rounds=2,
    ),
    Experiment(
        "train-step",
        "a GRPO step of SmolLM2-135M, 8 x 128 tokens, f32",
        ours=(step_command("all activations kept", ("{step}",), "{model}"), step_command("activations again", ("{step}",), "{model}", "--recompute")),
        peer=torch_steps("{model}"),
    ),
    Experiment(
        "train-step-group",
        "the same step where the 8 are one group, answers to one prompt",
        ours=(step_command("prompt laid out once", ("{step}",), "{model}", "--group", "8"),),
        peer=torch_steps("{model}")[:1],
        rounds=2,
    ),
    Experiment(
        "train-step-tiny",
        "a GRPO step of the embedded model",
        ours=(
            step_command("all activations kept", ("{step}",), "{tiny}"),
            step_command("groups of 8, prompts laid out once", ("{step}",), "{tiny}", "--group", "8"),
        ),
        peer=torch_steps("{tiny}"),
    ),
    Experiment(
        "iteration",
        "one iteration of the embedded model",
        ours=(Command("ours", ("python3", "{here}/ours_iteration.py", "--just", "{just}", "--bin", "{bin}", "--threads", "{threads}")),),
        peer=(bench_python("trl", "trl_iteration.py", "--threads", "{threads}", modules=("torch", "trl", "datasets", "nltk", "sklearn")),),
        rounds=2,
    ),
    Experiment(
        "shards",
        "two processes of one thread beside one; start-up; what of an iteration is no work",
        ours=tuple(
            bench_python(only, "shards.py", "--bin", "{bin}", "--only", only, "--repeat", "3", modules=modules, reads=reads)
            for only, modules, reads in (
                ("shards", (), (("seconds", "shards", "s", 1.0),)),
                ("start", (), (("seconds", "start", "ms", 1000.0),)),
                ("iteration", ("duckdb",), (("overhead", "overhead", "%", 100.0),)),
            )
        ),
        rounds=1,
    ),
    Experiment(
        "repetition",
        "the repetition penalty of 2,048 questions of 60 words",
        ours=(
            Command("ours", ("{repetition}", "--questions", "2048", "--threads", "{threads}"), reads=(("seconds", "repetition", "s", 1.0),)),
            Command("for the peer", ("{repetition}", "--questions", "256", "--threads", "{threads}", "--repeat", "1", "--write", "{cache}/questions.json")),
        ),
        peer=(
            bench_python(
                "nltk", "repetition_peer.py", "{cache}/questions.json", "--of", "2048",
                modules=("nltk", "sklearn"), threads=1, reads=(("seconds", "repetition", "s", 1.0),),
            ),
        ),
    ),
    *(
        Experiment(
            stage,
            f"{stage} of 10 million rows",
            ours=(Command("ours", ("{table_stages}", "--folder", "{cache}/tables", "--rows", "10000000", "--threads", "{threads}", "--repeat", "1", "--only", stage), reads=table_figures(stage)),),
            peer=tuple(
                bench_python(
                    peer, "tables_peer.py", "{cache}/tables", "--threads", "{threads}", "--repeat", "1", "--only", stage, "--peer", peer,
                    modules=(peer,), reads=table_figures(stage),
                )
                for peer in ("duckdb", "polars")
            ),
            quick=(("10000000", "200000"),),
        )
        for stage in ("vote-label", "filter")
    ),
    Experiment(
        "grading",
        "pairs of answers a second",
        ours=(Command("ours", ("python3", "{here}/grade.py", "ours", "--bin", "{bin}")),),
        peer=(bench_python("math-verify", "grade.py", "math-verify", modules=("math_verify",)),),
    ),
)


def decode_cases() -> tuple[Case, ...]:
    asked_best = {8: 1.0, 32: 1.0, 64: 1.2}
    asked_f32 = {8: 1.2, 32: 1.2, 64: 1.2, 128: 1.2}
    cases = []
    for batch in BATCHES:
        ours, peer = Lines(f"decode-shared/{batch}"), Lines(f"decode/{batch}")
        what = f"decode, batch {batch}"
        target = Target(ratio=asked_best.get(batch))
        cases.append(Case(f"decode-{batch}", f"{what}, best weights", "decode", "tokens/s", ours, peer, LLAMA, target))
    for batch in BATCHES:
        ours, peer = Lines(f"decode-shared/{batch}", "^f32"), Lines(f"decode/{batch}", "^f32")
        target = Target(ratio=asked_f32.get(batch))
        cases.append(Case(f"decode-f32-{batch}", f"decode, batch {batch}, f32", "decode", "tokens/s", ours, peer, LLAMA, target))
    own = "decode, batch 64, best weights, each with a prompt of its own"
    cases.append(Case("decode-own-64", own, "decode", "tokens/s", Lines("decode-own/64"), Lines("decode/64"), LLAMA))
    undrawn, title = Lines("decode-undrawn/64"), "decode, batch 64, best weights; theirs without the time of its sampler"
    cases.append(Case("decode-undrawn-64", title, "decode", "tokens/s", Lines("decode-shared/64"), undrawn, LLAMA))
    roofline = Target(at_least=60)
    cases.append(
        Case("roofline", "decode, batch 64, f32: share of the measured GEMM peak", "decode", "% of peak", Lines("decode-shared/64", "^f32"), target=roofline)
    )
    return tuple(cases)


CASES = (
    *decode_cases(),
    Case("workload", "10 answers to each of 200 questions", "workload", "s", Lines("workload"), Lines("workload"), LLAMA, Target(ratio=1.5)),
    Case("workload-tokens", "the same, tokens a second", "workload", "tokens/s", Lines("workload-tokens"), Lines("workload-tokens"), LLAMA),
    Case("train-step", "GRPO step of SmolLM2-135M, 8 x 128 tokens, f32", "train-step", "tokens/s", Lines("train-step"), Lines("train-step"), "PyTorch", Target(ratio=1.2)),
    Case("train-step-group", "the same where the 8 are one group, answers to one prompt", "train-step-group", "tokens/s", Lines("train-step"), Lines("train-step"), "PyTorch"),
    Case("train-memory", "the step of 8 different prompts, peak memory", "train-step", "MB", Lines("train-memory", "^all"), Lines("train-memory"), "PyTorch", Target(ratio=1 / 0.7)),
    Case("train-step-tiny", "GRPO step of the embedded model", "train-step-tiny", "tokens/s", Lines("train-step", "^all"), Lines("train-step"), "PyTorch", Target(ratio=2.0)),
    Case("train-step-tiny-group", "the same in groups of 8", "train-step-tiny", "tokens/s", Lines("train-step", "^groups"), Lines("train-step"), "PyTorch"),
    Case("iteration", "an iteration of the embedded model", "iteration", "s", Lines("iteration"), Lines("iteration"), "TRL + transformers", Target(ratio=10)),
    Case("solver-step", "one Solver step of it: sampling, rewards, GRPO step", "iteration", "s", Lines("solver-step"), Lines("solver-step"), "TRL's GRPOTrainer"),
    Case("overhead", "start-up, Parquet, manifests, votes and rewards: share of an iteration", "shards", "%", Lines("overhead"), target=Target(at_most=5)),
    Case("start", "start of vote-label where nothing is to be done", "shards", "ms", Lines("start", "vote-label, complete"), target=Target(at_most=100), threads=1),
    Case("shards", "solve-sample in two processes of one thread", "shards", "s", Lines("shards", "^2 processes"), Lines("shards", "^1 process x 1 thread"), "one process of one thread", Target(ratio=1.9), 2, "ours"),
    Case("repetition", "repetition penalty of 2,048 questions of 60 words", "repetition", "s", Lines("repetition"), Lines("repetition"), "NLTK + scikit-learn, one thread"),
    Case("repetition-time", "the same, in seconds", "repetition", "s", Lines("repetition"), target=Target(at_most=1)),
    *(
        case
        for stage in ("vote-label", "filter")
        for case in (
            Case(stage, f"{stage} of 10 million rows", stage, "s", Lines(stage), Lines(stage, "duckdb"), "DuckDB", Target(ratio=1.0)),
            Case(f"{stage}-polars", "the same against polars", stage, "s", Lines(stage), Lines(stage, "polars"), "polars"),
            Case(f"{stage}-memory", "the same, peak memory", stage, "MB", Lines(f"{stage}-memory"), target=Target(at_most=1000)),
        )
    ),
    Case("grading", "pairs of answers graded", "grading", "pairs/s", Lines("grading"), Lines("grading"), "math-verify"),
)
