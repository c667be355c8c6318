"""The page of `tfcq demo`: what it asks of a model (`model`), what scores mean (`scores`), the page by Gradio, its server."""
