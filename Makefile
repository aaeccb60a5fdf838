# Aliases only: scripts/bootstrap.py does the work and needs no make.
.PHONY: quickstart test lint docs serve-docs

quickstart test lint docs serve-docs:
	python3 scripts/bootstrap.py $@
