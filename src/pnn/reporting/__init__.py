"""Run folders → one self-contained page, CSV tables and Markdown. Nothing here imports torch."""
