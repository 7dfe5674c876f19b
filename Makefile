# SPDX-License-Identifier: Apache-2.0
# Forwards to ./dev, which needs no make: `make boot AGENT=path` is `./dev boot AGENT=path`.
COMMANDS := boot test conformance bench lint fuzz mutate gpu-acceptance docs site image lock setup fresh
VARIABLES := AGENT CMDLINE TIER RUNS PROFILE
GIVEN = $(foreach name,$(VARIABLES),$(if $(filter command line,$(origin $(name))),'$(name)=$(subst ','\'',$($(name)))'))

.PHONY: help $(COMMANDS)
help:
	@./dev --help

$(COMMANDS):
	@./dev $@ $(GIVEN)
