"""Text -> tokens -> frozen causal LM -> hidden states and next-token metrics. Knows nothing of the rest."""
