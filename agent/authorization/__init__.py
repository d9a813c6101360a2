"""Who may command a bench: rules, tokens and their keys, and how often (docs/authorization.md)."""
