"""Zero-shot evaluation on raw datasets by the paper's protocol (Table 1)."""
