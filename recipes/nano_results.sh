#!/usr/bin/env bash
# Every figure of the README's tables, from the shipped weights: recipes/nano_results.sh
# The whole official test sides of SCAN, fresh arithmetic items under the held-out rule. About six
# minutes on two cores. Summaries go to docs/results, one row per item to files beside them.
set -euo pipefail
cd "$(dirname "$0")/.."
out=docs/results
r2=${R2REASONER:-.venv/bin/r2reasoner}
export R2REASONER_HOME=runs/results
all="r2,single:*,cot,strongest,last-node,random,cheapest"
mkdir -p "$out" "$R2REASONER_HOME"
rm -f "$out"/*.rows.jsonl "$R2REASONER_HOME"/*.jsonl

evaluate() {  # NAME ARGUMENTS...
    local name=$1
    shift
    "$r2" evaluate "$@" --seed 0 --out "$out/$name.json"
}

items() {  # NAME ARGUMENTS...
    local name=$1
    shift
    "$r2" nano items arithmetic --count 1000 --seed 1 --out "$R2REASONER_HOME/$name.jsonl" "$@"
}

items 3-4 --operands 3,4
items 5 --operands 5
items values --operands 3,4 --unseen-values
items blind --operands 3,4 --seed 31
items one-step --operands 2 --count 300 --seed 31
evaluate scan-length scan --split length --strategy "$all"
evaluate scan-addprim_jump scan --split addprim_jump --strategy "$all"
evaluate arithmetic-3-4 arithmetic --split test --strategy "$all" --items "$R2REASONER_HOME/3-4.jsonl"
evaluate arithmetic-5 arithmetic --split test:5 --strategy "$all" --items "$R2REASONER_HOME/5.jsonl"
evaluate arithmetic-values arithmetic --split values --strategy "$all" \
    --items "$R2REASONER_HOME/values.jsonl"
evaluate arithmetic-blind arithmetic --split test --strategy r2,cot,strongest,single:128x4 \
    --items "$R2REASONER_HOME/blind.jsonl"
evaluate arithmetic-one-step arithmetic --split test:2 --strategy "r2,single:*" \
    --items "$R2REASONER_HOME/one-step.jsonl"
evaluate arithmetic-dial arithmetic --split test --items "$R2REASONER_HOME/3-4.jsonl" \
    --strategy "r2@0,r2@0.25,r2@0.5,r2@0.75,r2@1"
"$r2" nano eval --json > "$out/ladder.json"
"$r2" nano eval
