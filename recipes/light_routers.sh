#!/usr/bin/env bash
# Light routers on recorded outcomes, by repeated cross-validation: recipes/light_routers.sh DATA [TEST]
# DATA holds outcome sets, a folder each (docs/outcomes.md); TEST others of the same layouts.
set -euo pipefail
data=$1 test=${2:-}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
stores() { # FOLDER STORE
    for folder in "$1"/{csqa_dev_outcomes,gsm8k_four_systems,llmrouter_nine_models,p3_codex_outcomes,routellm_gsm8k,routellm_mmlu,routellm_mtbench,routerarena_sub10,dot_query_outcomes,dot_step_allocations}; do
        if [ -d "$folder" ]; then r2reasoner outcomes import "$folder" --out "$2"; fi
    done
}
routers=knn,ridge,logistic,mf,group,blend,embed
stores "$data" "$work/train"
if [ -n "$test" ]; then
    stores "$test" "$work/test"
    r2reasoner outcomes judge --train "$work/train" --test "$work/test" --router $routers \
        --out docs/results/light-routers-test.json
else
    r2reasoner outcomes judge --train "$work/train" --router $routers --repeats 1 \
        --out docs/results/light-routers.json
fi
