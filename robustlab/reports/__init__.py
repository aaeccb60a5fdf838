"""What is shown of results: plots, tables, cards, pages, and a comparison of two models. The only package that plots."""
