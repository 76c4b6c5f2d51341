"""An OpenAI-compatible gateway over the engine: routing, keys with hard budgets, a dashboard."""
