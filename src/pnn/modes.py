"""The training modes by name, as they are written in YAML, tables and plots."""

MODE_LABELS = {"in_silico": "in silico", "pat": "physics-aware (PAT)", "ideal": "ideal (oracle)"}
