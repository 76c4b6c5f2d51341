#!/usr/bin/env bash
# The table of all strategies on the nano pool: recipes/nano_table.sh [ARGUMENTS of evaluate, as
# --limit 50]. SCAN (length, addprim_jump, simple) and arithmetic; r2 at five settings of the dial;
# what draws, with three seeds. Summaries go to docs/results, one row per item beside them.
#
# SCAN's split simple is random: SIMPLE_ITEMS names its official test file (JSON lines with command
# and actions) and SIMPLE_POOL a pool trained for it, as made by
#   r2reasoner nano train --set simple --train-items simple_train.jsonl
# Without them that split is left out, and said so.
#
# Answers are kept in a store under runs/, so that no model is asked the same twice, whichever
# strategy asks; costs are as if it had been. Light routers, knn and routellm need the extra
# `evaluation`; they learn from the outcomes that lie beside the pool's weights.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${OUT:-docs/results}
r2=${R2REASONER:-.venv/bin/r2reasoner}
export R2REASONER_HOME=runs/nano-table
mkdir -p "$out" "$R2REASONER_HOME"

at() {  # NAME NUMBERS...: NAME@NUMBER, by commas
    local name=$1
    shift
    printf ",$name@%s" "$@"
}

all="single:*,cot,tot,datashunt,automix,frugal,dot,router-r1,strongest,cheapest,random,last-node"
all+=",routellm,oracle$(at r2 0 0.25 0.5 0.75 1)$(at light:blend 0 0.25 0.5 0.75 0.9)"
all+="$(at kind-table 0 0.25 0.5 0.75 0.9)$(at knn 0 0.25 0.5 0.75 0.9)"
all+="$(at routellm 0.25 0.75)$(at frugal 0.8 0.98)$(at automix 0.3 0.7)"

table() {  # NAME ARGUMENTS...
    local name=$1
    shift
    "$r2" evaluate "$@" --strategy "$all" --seed 0 --seeds 0,1,2 --out "$out/table-$name.json" \
        --outcomes "$R2REASONER_HOME/outcomes-$name"
}

table scan-length scan --split length --pool nano "$@"
table scan-addprim_jump scan --split addprim_jump --pool nano-addprim_jump "$@"
table arithmetic arithmetic --split test --pool nano "$@"
if [[ -n ${SIMPLE_ITEMS:-} && -n ${SIMPLE_POOL:-} ]]; then
    table scan-simple scan --split simple --items "$SIMPLE_ITEMS" --pool "$SIMPLE_POOL" "$@"
else
    echo "SCAN simple is left out: set SIMPLE_ITEMS and SIMPLE_POOL, see the top of this file" >&2
fi
