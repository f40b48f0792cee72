# R-Zero: a base model is split into a Challenger and a Solver that teach each other.
#
# Variables stand before the recipe:  just profile=smoke run=data/runs/try iterate 1
# What stands where:  pipelines/loop.just   the order of everything: phases, iterations
#                     pipelines/stages.just one recipe for each stage
#                     pipelines/make.just   the embedded model, the held-out ladder, the schemas
#                     pipelines/bench.just  the benchmarks beside the peers
#                     pipelines/cluster.just the same order on Slurm, and jobs for other schedulers
#                     pipelines/stage.bash  how a recipe runs a stage

set script-interpreter := ["bash", "-euo", "pipefail"]

import 'pipelines/loop.just'
import 'pipelines/stages.just'
import 'pipelines/make.just'
import 'pipelines/bench.just'
import 'pipelines/cluster.just'

# Every number of a run: pipelines/profiles/NAME.toml
profile := "tiny"

# Where the run lives: a folder, or a URL (s3://BUCKET/RUN, gs://, az://, file://). One run directory holds one profile and one seed.
run := "data/runs" / profile

# Keys of the profile to replace, split by `;`, for example "seed=2;solver.grpo.kl_coef=0"
set := ""

# Into how many processes the stages that can be cut are cut, from 1. Does not change a row. A run keeps the number it began with.
shards := "1"

# Processes that share the gradient of each update, of at most grpo.gradient_parts of the profile; 0 leaves it to grpo-step. Does not change a byte.
gradients := "0"

# What a run keeps of its training steps: all, or last, where after each iteration goes what nothing reads any more (`just prune`). Does not change a row.
keep := "all"

# Runs of a matrix side by side, each on its part of the threads (`just jobs=2 ablate paper`). Does not change a byte.
jobs := "1"

# Threads of a stage. Does not change a byte.
threads := env("RZERO_THREADS", num_cpus())

# Who completes prompts: engine, or openai for a server (vLLM, SGLang, llama.cpp) at url=ADDRESS/v1 that knows the checkpoint as model=NAME.
backend := "engine"
url := ""
model := ""

# Where the stage binaries lie.
bin := env("CARGO_TARGET_DIR", "target") / "release"

# What the stages read. The log is down to warnings and the progress bars; RUST_LOG=info brings the rest back.
export RZERO_RUN := run
export RZERO_PROFILE := "pipelines/profiles" / profile + ".toml"
export RZERO_SET := set
export RZERO_THREADS := threads
export POLARS_MAX_THREADS := threads
export RUST_LOG := env("RUST_LOG", "warn,rzero_stages::console=info")

# What pipelines/stage.bash reads.
export RZERO_BIN := bin
export RZERO_SHARDS := shards
export RZERO_GRADIENTS := gradients
export RZERO_KEEP := keep
export RZERO_BACKEND := backend
export RZERO_URL := url
export RZERO_SERVED_MODEL := model
export RZERO_JUST := just_executable()

# Tests say themselves which run they mean.
without_run := "env -u RZERO_RUN -u RZERO_PROFILE -u RZERO_SET -u RZERO_THREADS -u RZERO_DEVICE -u RZERO_ROOT -u RZERO_MIRRORS -u RZERO_REUSE -u RZERO_BACKEND -u RZERO_URL -u RZERO_SERVED_MODEL -u RZERO_LOG -u RZERO_INDEX_BASE -u SHARD_INDEX -u NUM_SHARDS -u RUST_LOG"

# This program once more, with the same variables.
again := quote(just_executable()) + " --justfile " + quote(justfile()) + " profile=" + quote(profile) + " run=" + quote(run) + " set=" + quote(set) + " shards=" + quote(shards) + " gradients=" + quote(gradients) + " keep=" + quote(keep) + " backend=" + quote(backend) + " url=" + quote(url) + " model=" + quote(model) + " threads=" + quote(threads) + " bin=" + quote(bin)

# List the recipes
[private]
default:
    @{{ again }} --list --unsorted

# Build every binary
[group('begin here')]
setup:
    cargo build --release --workspace --bins --examples{{ if run =~ '://' { ' --features rzero-stages/stores' } else { '' } }}

# (There are no examples. Asking for them makes cargo choose the features of dependencies as it does for tests, so that `setup`
# and `test` share every compiled crate.)

# What is missing on this machine, for what, and how to get it
[group('begin here')]
[no-exit-message]
doctor:
    @RZERO_JUST={{ quote(just_executable()) }} bash pipelines/doctor

# Manual pages and completions for bash, zsh and fish: `man -M FOLDER grpo-step`, `source FOLDER/completions/bash/audit.bash`
[group('begin here')]
manuals folder="target/manuals":
    @{{ quote(bin / "export-manuals") }} {{ quote(folder) }} | wc -l | xargs -I NUM echo "NUM files in {{ folder }}"

# Run the tests
[group('work on the code')]
test *flags:
    {{ without_run }} cargo test --release --workspace --lib --test '*' {{ flags }}

# The laws of votes, answers, rewards and numbers on so many new cases each; what breaks one is printed at its shortest
[group('work on the code')]
test-laws cases="20000":
    {{ without_run }} PROPTEST_CASES={{ quote(cases) }} cargo test --release --workspace --lib

# Change so many values of a run at random, every digest repaired: the audit finds each
[group('work on the code')]
test-audit mutations="100":
    {{ without_run }} RZERO_MUTATIONS={{ quote(mutations) }} cargo test --release --workspace --test pipeline -- --nocapture audit::a_value

# Every table of a run, and a dataset made of it, by pyarrow, DuckDB, polars and datasets (installs them)
[group('work on the code')]
test-readers:
    @{{ without_run }} RZERO_JUST={{ quote(just_executable()) }} RZERO_BIN={{ quote(bin) }} bash pipelines/test-readers

# The report in a real browser: no request, no error, nothing out of reach (installs Chromium); screenshots stay in the folder, if one is named
[group('work on the code')]
test-report *folder:
    @{{ without_run }} RZERO_JUST={{ quote(just_executable()) }} RZERO_BIN={{ quote(bin) }} bash pipelines/test-report {{ folder }}

# The tests of runs in object stores: on a folder, then on a server that speaks S3 (installs moto's)
[group('work on the code')]
test-stores:
    {{ without_run }} RZERO_JUST={{ quote(just_executable()) }} bash pipelines/test-stores

# Whether the path of a CUDA device compiles; fetches NVIDIA's compiler where there is none
[group('work on the code')]
check-cuda:
    {{ without_run }} bash pipelines/check-cuda

# Hold SmolLM2 against transformers' texts and logits, and a step on it against its memory plan (`just model-smollm2` first)
[group('work on the code')]
test-smollm2:
    {{ without_run }} cargo test --release --workspace --test smollm2 --test smollm2_memory -- --nocapture

# A Challenger step and an evaluation of SmolLM2 through a real llama.cpp server (`just model-smollm2` first; installs the server)
[group('work on the code')]
check-openai:
    {{ without_run }} RZERO_JUST={{ quote(just_executable()) }} RZERO_BIN={{ quote(bin) }} bash pipelines/check-openai

# Everything short of the tests: format, lints, words that must not stay, schemas
[group('work on the code')]
[script]
check:
    cargo fmt --all --check
    for file in justfile pipelines/*.just; do
        {{ quote(just_executable()) }} --justfile "$file" --fmt --check
    done
    if grep -rnE --include='*.rs' --exclude=tidy.rs '\b(todo|unimplemented|dbg)!' crates tests; then
        echo "error: these words must not stay" >&2
        exit 1
    fi
    {{ without_run }} cargo clippy --release --workspace --all-targets -- --deny warnings
    {{ without_run }} cargo run --release --quiet --bin export-schemas -- --check
