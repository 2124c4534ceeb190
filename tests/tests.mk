# tests.mk: dependencies, the demo, and every test target.

BUILD_PKGS := gcc make flex bison libhwloc-dev libdnnl-dev libjansson-dev
TEST_PKGS := libcmocka-dev llvm-14-tools clang-14 clang-format-14 libclang-rt-14-dev python3 python3-venv bible-kjv libopenmpi-dev openmpi-bin

define apt_install
	@missing=$$(for p in $(1); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
	if [ -z "$$missing" ]; then exit 0; fi; \
	sudo=; if [ "$$(id -u)" != 0 ]; then \
	    sudo -n true 2>/dev/null || { echo "please install: apt-get install $$missing" >&2; exit 1; }; sudo="sudo -n"; fi; \
	echo "installing $$missing"; \
	$$sudo apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq --no-install-recommends $$missing >/dev/null
endef

.PHONY: deps-build deps
deps-build:
	$(call apt_install,$(BUILD_PKGS))
deps: deps-build
	$(call apt_install,$(TEST_PKGS))

# numpy, for the tests that drive the binaries from outside.
VENV := .venv/bin/python3
$(VENV):
	$(Q)/usr/bin/python3 -m venv .venv && .venv/bin/pip install -q 'numpy<2.3'

# ---- demo: a text, a language model, a minute of training on 4 devices, a sample ------------------------------------

DEMO_SECONDS ?= 60
.PHONY: demo
demo: deps-build
	$(call apt_install,bible-kjv)
	+@$(MAKE) --no-print-directory all
	@$(BUILD)/moecc --help >/dev/null
	bible -f gen1:1-rev22:21 > $(BUILD)/bible.txt
	$(BUILD)/moecc examples/gshard_lm.moe -o $(BUILD)/lm
	rm -rf $(BUILD)/lm.ckpt
	$(BUILD)/lm train --data $(BUILD)/bible.txt --time=$(DEMO_SECONDS)s --steps 1500 --save $(BUILD)/lm.ckpt
	$(BUILD)/lm eval --data $(BUILD)/bible.txt --weights $(BUILD)/lm.ckpt
	$(BUILD)/lm generate --weights $(BUILD)/lm.ckpt --prompt "And God said" --temperature 0.7 --max-tokens 300

# ---- tests -----------------------------------------------------------------------------------------------------------

UNIT_SRC := $(wildcard tests/unit/*_test.c tests/oracle/*_test.c)
RT_SRC := $(wildcard tests/runtime/*_test.c)
UNIT_BIN := $(UNIT_SRC:%.c=$(BUILD)/%)
RT_BIN := $(RT_SRC:%.c=$(BUILD)/%)
CFLAGS_test := $(CFLAGS) -Wall -Wextra -Werror -Wno-unused-parameter

$(BUILD)/tests/runtime/%_test: tests/runtime/%_test.c $(BUILD)/libmoert.a
	@mkdir -p $(@D)
	@echo "  TEST $<"
	$(Q)$(CC) $(CFLAGS_test) $(CFLAGS_runtime) -Iruntime -Itests/runtime -MMD -MP -o $@ $< $(BUILD)/libmoert.a -lcmocka $(LIBS_model)

LIBS_model := $(if $(filter tsan,$(VARIANT)),,-ldnnl) -lhwloc -ljansson -lm -pthread
$(BUILD)/tests/%_test: tests/%_test.c $(OBJ_frontend) $(OBJ_codegen) $(OBJ_passes) $(OBJ_ir)
	@mkdir -p $(@D)
	@echo "  TEST $<"
	$(Q)$(CC) $(CFLAGS_test) -Iir -Ipasses -Ifrontend -Icodegen -MMD -MP -o $@ $< $(filter %.o,$^) -lcmocka $(LIBS_moecc)

.PHONY: test-bins test test-fast lint
test-bins: all $(UNIT_BIN) $(RT_BIN)

# The same with other compilers and flags, each in a folder of its own: clang without optimization (its warnings),
# sanitizers, fuzz targets. A moecc built with a sanitizer builds programs with it.
.PHONY: check-clang check-asan check-tsan check-fuzz
check-clang:
	+@$(MAKE) --no-print-directory CC=clang-14 BUILD=$(BUILD)-clang CFLAGS_release=-O0 test-bins
check-asan:
	+@$(MAKE) --no-print-directory VARIANT=asan BUILD=$(BUILD)-asan test-bins
check-tsan:
	+@$(MAKE) --no-print-directory VARIANT=tsan BUILD=$(BUILD)-tsan all
check-fuzz:
	+@$(MAKE) --no-print-directory VARIANT=fuzz BUILD=$(BUILD)-fuzz fuzz-bins

# Everything: needs no GPU. The last line is `N passed, N failed`.
test: deps
	+@$(MAKE) --no-print-directory test-bins check-clang check-asan check-tsan check-fuzz $(VENV)
	@BUILD=$(BUILD) tests/run all
# What a change needs first: units, goldens and lint, seconds.
test-fast: test-bins
	@BUILD=$(BUILD) tests/run fast
lint:
	@BUILD=$(BUILD) tests/run lint

# Any bytes as input of what reads files (clang's libFuzzer); each target for FUZZ_SECONDS.
FUZZ_SECONDS ?= 60
FUZZ_BIN := $(patsubst %.c,$(BUILD)/%,$(wildcard tests/fuzz/*_fuzz.c))
FUZZ_CC = $(CC) $(CFLAGS_test) -fsanitize=fuzzer -Iir -Ipasses -Ifrontend -Icodegen -Iruntime -MMD -MP -o $@ $<
$(BUILD)/tests/fuzz/weights_fuzz: tests/fuzz/weights_fuzz.c $(BUILD)/libmoert.a
	@mkdir -p $(@D)
	@echo "  FUZZ $<"
	$(Q)$(FUZZ_CC) $(BUILD)/libmoert.a $(LIBS_model)
$(BUILD)/tests/fuzz/%_fuzz: tests/fuzz/%_fuzz.c $(OBJ_frontend) $(OBJ_codegen) $(OBJ_passes) $(OBJ_ir)
	@mkdir -p $(@D)
	@echo "  FUZZ $<"
	$(Q)$(FUZZ_CC) $(filter %.o,$^) $(LIBS_moecc)

.PHONY: fuzz fuzz-bins
fuzz-bins: $(FUZZ_BIN)
fuzz: deps check-fuzz
	@tests/fuzz/run $(BUILD)-fuzz $(FUZZ_SECONDS)

FORMATTED := $(wildcard ir/*.[ch] ir/support/*.[ch] frontend/*.[ch] passes/*.[ch] codegen/*.[ch] runtime/*.[ch] tests/*/*.[ch])
.PHONY: format
format:
	clang-format-14 -i $(FORMATTED)

# A table of shares of this machine's peak; PEER=jax adds ratios (tests/bench/README.md). PEER_PYTHON: one that has jax.
PEER_PYTHON ?= .venv-bench/bin/python3
.PHONY: bench
bench: all $(VENV) $(if $(PEER),$(PEER_PYTHON))
	@BUILD=$(BUILD) PEER=$(PEER) PEER_PYTHON=$(PEER_PYTHON) CC=$(CC) $(VENV) tests/bench/bench.py
.venv-bench/bin/python3:
	$(Q)/usr/bin/python3 -m venv .venv-bench && .venv-bench/bin/pip install -q jax
