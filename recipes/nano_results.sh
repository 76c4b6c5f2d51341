#!/usr/bin/env bash
# Every figure of the README's tables, from the shipped weights: recipes/nano_results.sh [FOLDER]
# Fresh arithmetic items under the held-out rule; SCAN's whole test side unless SCAN_ITEMS names a
# file in the layout of the official one. About ten minutes on two cores.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-docs/results}
r2=${R2REASONER:-.venv/bin/r2reasoner}
rows=$(mktemp -d)
trap 'rm -rf "$rows"' EXIT
export R2REASONER_HOME=$rows
all="r2,single:*,cot,strongest,last-node,random,cheapest"
mkdir -p "$out"

evaluate() {  # NAME ARGUMENTS...
    local name=$1
    shift
    "$r2" evaluate "$@" --seed 0 --out "$rows/$name.json"
    cp "$rows/$name.json" "$out/$name.json"
}

"$r2" nano items arithmetic --operands 3,4 --count 1000 --seed 1 --out "$rows/arithmetic-3-4.jsonl"
"$r2" nano items arithmetic --operands 5 --count 1000 --seed 1 --out "$rows/arithmetic-5.jsonl"
"$r2" nano items arithmetic --operands 3,4 --count 1000 --seed 1 --unseen-values \
    --out "$rows/arithmetic-values.jsonl"
evaluate scan-length scan --split length --strategy "$all" ${SCAN_ITEMS:+--items "$SCAN_ITEMS"}
evaluate arithmetic-3-4 arithmetic --split test --strategy "$all" --items "$rows/arithmetic-3-4.jsonl"
evaluate arithmetic-5 arithmetic --split test:5 --strategy "$all" --items "$rows/arithmetic-5.jsonl"
evaluate arithmetic-values arithmetic --split values --strategy "$all" \
    --items "$rows/arithmetic-values.jsonl"
evaluate arithmetic-dial arithmetic --split test --items "$rows/arithmetic-3-4.jsonl" \
    --strategy "r2@0,r2@0.1,r2@0.3,r2@0.5,r2@0.8,r2@1"
"$r2" nano eval --json > "$out/ladder.json"
"$r2" nano eval
