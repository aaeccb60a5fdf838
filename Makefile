# Aliases only: scripts/bootstrap.py does the work and needs no make.
.PHONY: quickstart test lint

quickstart test lint:
	python3 scripts/bootstrap.py $@
