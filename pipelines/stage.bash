# How recipes run stages. The order of stages stands in the recipes, not here.
#
#   stage filter --iteration 1 --phase curriculum       one process
#   sharded eval --iteration 1 --phase eval             one process a shard, one after the other
#   update_policy --iteration 1 --phase solver --step 2  one process, or RZERO_GRADIENTS that share the gradient and one that adds it up
#
# With RZERO_PLAN set, commands are printed and not run; with RZERO_DRY_RUN, stages say what they would do.

# Recipes say themselves which shard a stage is; what a scheduler left in the environment is not meant for them.
unset SHARD_INDEX NUM_SHARDS RZERO_INDEX_BASE

if [[ ! $RZERO_SHARDS =~ ^[1-9][0-9]*$ ]]; then
    echo "error: \`$RZERO_SHARDS\` is no number of shards" >&2
    echo "hint: shards counts from 1, for example shards=4" >&2
    exit 2
fi

if [[ ! $RZERO_GRADIENTS =~ ^(0|[1-9][0-9]*)$ ]]; then
    echo "error: \`$RZERO_GRADIENTS\` is no number of processes that share a gradient" >&2
    echo "hint: gradients=0 computes it where it is used; gradients=4 shares it among four" >&2
    exit 2
fi

if [[ ! ${RZERO_KEEP:-all} =~ ^(all|last)$ ]]; then
    echo "error: \`$RZERO_KEEP\` is nothing that a run keeps" >&2
    echo "hint: keep=all keeps every training step; keep=last keeps what a phase leaves" >&2
    exit 2
fi

if [[ ${RZERO_KEEP:-all} == last && $RZERO_RUN == *://* ]]; then
    echo "error: nothing is pruned of a run in an object store" >&2
    echo "hint: leave keep=last out, and let the store's own rules expire checkpoints of steps" >&2
    exit 2
fi

# require_number WHAT TEXT
require_number() {
    if [[ ! $2 =~ ^(0|[1-9][0-9]*)$ ]]; then
        echo "error: \`$2\` is no $1" >&2
        exit 2
    fi
}

# A profile of this name, for a run: those of base models, which describe a corpus, are for \`just pretrain\`.
require_profile() {
    if [[ ! -f $RZERO_PROFILE ]] || grep -q '^\[corpus\]' "$RZERO_PROFILE"; then
        local names
        names=$(grep -L '^\[corpus\]' pipelines/profiles/*.toml | sed 's|.*/||; s|\.toml$||' | sort | paste -sd ' ')
        echo "error: no profile of a run is called \`$1\`" >&2
        echo "hint: choose one of: $names" >&2
        exit 2
    fi
}

stage() {
    if [[ -n ${RZERO_PLAN:-} ]]; then
        echo "$*"
        return
    fi
    if [[ -n ${RZERO_DRY_RUN:-} ]]; then
        # Inputs that are there go without saying. What a stage lacks is no error here: the stages before it would make it.
        "$RZERO_BIN/$1" "${@:2}" --dry-run 2>&1 | grep -vE '^  (input .*: present|memory|       )' || true
        return
    fi
    local code=0
    "$RZERO_BIN/$1" "${@:2}" || code=$?
    if ((code != 0)); then
        echo "stopped with exit code $code at: $*" >&2
        # 127: there is no such program. Only a fault that may pass by itself is worth the advice to try again.
        case $code in
            5) echo "hint: the labels are too often false: look at the table label_probe; set=\"probe.floor=NUMBER\" with a lower number goes on from here" >&2 ;;
            75) echo "hint: nothing was lost; the same command goes on from here" >&2 ;;
            127) echo "hint: build the binaries with \`just setup\`" >&2 ;;
            *) echo "hint: once the cause is gone, the same command goes on from here" >&2 ;;
        esac
        exit "$code"
    fi
}

sharded() {
    local index
    for ((index = 0; index < RZERO_SHARDS; index++)); do
        stage "$@" --shard-index "$index" --num-shards "$RZERO_SHARDS"
    done
}

# judged --iteration 1 --phase curriculum: the Verifier, where its verdicts decide something.
judged() {
    local from
    from=$(profile_get "judged.$4")
    ((from < 0 || $2 < from)) || sharded verify "$@"
}

# update_policy --iteration 1 --phase solver --step 2: the last stage of a training step, in one process, or shared out.
update_policy() {
    if ((RZERO_GRADIENTS == 0)); then
        stage grpo-step "$@"
        return
    fi
    local update updates index
    updates=$(profile_get "$4.updates")
    for ((update = 1; update <= updates; update++)); do
        for ((index = 0; index < RZERO_GRADIENTS; index++)); do
            stage grpo-gradient "$@" --update "$update" --shard-index "$index" --num-shards "$RZERO_GRADIENTS"
        done
        stage grpo-step "$@" --from-gradients --update "$update" --drop-gradients
    done
}

# Values of the profile, overrides applied.
profile_get() {
    if [[ ! -x $RZERO_BIN/profile-get ]]; then
        echo "error: no binaries in $RZERO_BIN" >&2
        echo "hint: build them with \`just setup\`" >&2
        exit 1
    fi
    "$RZERO_BIN/profile-get" "$@"
}

# One word that changes whenever a stage under this folder finishes. Of a run in an object store that is to be seen in its mirror.
manifests_under() {
    local folder=$1
    if [[ $1 == *://* ]]; then
        folder=${1/:\/\//\/}
        folder=${RZERO_MIRRORS:-${TMPDIR:-/tmp}/rzero-mirror}/${folder/#file\/\//file\/}
    fi
    [[ ! -d $folder ]] || find "$folder" -name 'manifest-*.json' -exec cksum {} + | sort | cksum
}

# begin_phase ITERATION PHASE ... end_phase: one line with the seconds, unless all of it was there already.
begin_phase() {
    require_number iteration "$1"
    phase_title="iteration $1  $2"
    phase_folder=$(printf '%s/iter-%03d/%s' "$RZERO_RUN" "$1" "$2")
    phase_before=$(manifests_under "$phase_folder")
    SECONDS=0
}

end_phase() {
    if [[ $phase_before != "$(manifests_under "$phase_folder")" ]]; then
        printf '%-24s done in %d s\n' "$phase_title" "$SECONDS" >&2
    fi
}
