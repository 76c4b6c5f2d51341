"""What a router would have cost on requests that were logged, and what it puts at risk.

`logs` reads them, `today` prices what they cost, `unpaid` estimates without a call, `sample` really
asks a sample within a budget and `verdict` judges it; `document` puts all of it into one result.
No text of a request or an answer leaves these modules: results hold counts, costs and verdicts.
"""
