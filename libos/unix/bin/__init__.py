"""Programs for the small Unix, as source text: `main(process, arguments)`, a generator."""
