# moecc: build, test, install. `make help` lists the targets.
#
#   make                 build/moecc, build/libmoert.a
#   VARIANT=asan|tsan    another build folder (build-asan) with that sanitizer;  CC=clang;  V=1 shows commands

VARIANT ?= release
BUILD := build$(if $(filter-out release,$(VARIANT)),-$(VARIANT))
CC ?= cc
PREFIX ?= /usr/local
PY ?= python3
Q := $(if $(V),,@)

WARN := -Wall -Wextra -Wshadow -Wconversion -Werror
CFLAGS_release := -O2 -g
CFLAGS_debug := -O0 -g3 -DARENA_MALLOC
CFLAGS_asan := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -DARENA_MALLOC
CFLAGS_tsan := -O1 -g -fsanitize=thread -DMOE_REFERENCE_GEMM
CFLAGS_fuzz := -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -DARENA_MALLOC
ifeq ($(VARIANT),fuzz)
CC := clang-14
endif
CFLAGS_VARIANT := $(CFLAGS_$(VARIANT))
$(if $(CFLAGS_VARIANT),,$(error unknown VARIANT '$(VARIANT)': release, debug, asan, tsan, fuzz))
CFLAGS := -std=c11 -D_GNU_SOURCE $(CFLAGS_VARIANT)

# Who may include what: only the driver sees all (tests/lint/includes checks the rest).
INC_ir := -Iir
INC_frontend := -Iir -Ifrontend
INC_passes := -Iir -Ipasses
INC_codegen := -Iir -Icodegen
INC_main := -Iir -Ifrontend -Ipasses -Icodegen
INC_runtime := -Iruntime

SRC_ir := $(wildcard ir/*.c ir/support/*.c)
SRC_passes := $(wildcard passes/*.c)
SRC_codegen := $(wildcard codegen/*.c)
SRC_frontend := $(filter-out frontend/main.c,$(wildcard frontend/*.c))
SRC_runtime := $(filter-out runtime/comm_mpi.c,$(wildcard runtime/*.c))
STD := $(wildcard frontend/std/*.moe)

OBJ_ir := $(SRC_ir:%.c=$(BUILD)/%.o)
OBJ_passes := $(SRC_passes:%.c=$(BUILD)/%.o)
OBJ_codegen := $(SRC_codegen:%.c=$(BUILD)/%.o)
OBJ_frontend := $(SRC_frontend:%.c=$(BUILD)/%.o) $(BUILD)/frontend/parse.tab.o $(BUILD)/frontend/lex.yy.o $(BUILD)/frontend/std.o
OBJ_main := $(BUILD)/frontend/main.o
OBJ_runtime := $(SRC_runtime:%.c=$(BUILD)/%.o)

LIBS_moecc := -lhwloc -ljansson -lm
# The runtime's kernels are the product: always optimized, for this machine.
CFLAGS_runtime := -O3 -march=native -pthread

.DEFAULT_GOAL := all
.PHONY: all
all: $(BUILD)/moecc $(BUILD)/libmoert.a

# Programs under mpirun load this beside libmoert.a; without an MPI compiler it is left out. MPICC= leaves it out too.
MPICC ?= $(shell command -v mpicc 2>/dev/null)
ifneq ($(MPICC),)
all: $(BUILD)/libmoert_mpi.so
endif

$(BUILD)/moecc: $(OBJ_main) $(OBJ_frontend) $(OBJ_codegen) $(OBJ_passes) $(OBJ_ir)
	@echo "  LINK $@"
	$(Q)$(CC) $(CFLAGS) -o $@ $^ $(LIBS_moecc)

$(BUILD)/libmoert.a: $(OBJ_runtime)
	@echo "  AR   $@"
	$(Q)rm -f $@; ar rcs $@ $^

$(BUILD)/libmoert_mpi.so: runtime/comm_mpi.c runtime/transport.h
	@mkdir -p $(@D)
	@echo "  MPI  $<"
	$(Q)OMPI_CC="$(CC)" MPICH_CC="$(CC)" $(MPICC) $(CFLAGS) $(WARN) -Iruntime -fPIC -shared -o $@ $<

define compile
	@mkdir -p $(@D)
	@echo "  CC   $<"
	$(Q)$(CC) $(CFLAGS) $(1) -MMD -MP -c -o $@ $<
endef

$(BUILD)/ir/%.o: ir/%.c
	$(call compile,$(WARN) $(INC_ir))
$(BUILD)/passes/%.o: passes/%.c
	$(call compile,$(WARN) $(INC_passes))
$(BUILD)/codegen/%.o: codegen/%.c
	$(call compile,$(WARN) $(INC_codegen))
$(BUILD)/frontend/main.o: frontend/main.c
	$(call compile,$(WARN) $(INC_main))
$(BUILD)/frontend/%.o: frontend/%.c $(BUILD)/frontend/parse.tab.h
	$(call compile,$(WARN) $(INC_frontend) -I$(BUILD)/frontend)
$(BUILD)/runtime/%.o: runtime/%.c
	$(call compile,$(WARN) $(INC_runtime) $(CFLAGS_runtime))

# Generated lexer, parser and library text compile without -Wconversion.
$(BUILD)/frontend/parse.tab.c $(BUILD)/frontend/parse.tab.h &: frontend/parse.y
	@mkdir -p $(@D)
	$(Q)bison -Wall -Werror -o $(BUILD)/frontend/parse.tab.c --defines=$(BUILD)/frontend/parse.tab.h $<
$(BUILD)/frontend/lex.yy.c: frontend/lex.l $(BUILD)/frontend/parse.tab.h
	$(Q)flex -o $@ $<
$(BUILD)/frontend/std.c: $(STD) frontend/embed.sh
	@mkdir -p $(@D)
	$(Q)sh frontend/embed.sh $(STD) > $@
$(BUILD)/frontend/%.o: $(BUILD)/frontend/%.c
	$(call compile,-Wall -Wno-unused-function $(INC_frontend) -I$(BUILD)/frontend)

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)

include tests/tests.mk

.PHONY: clean
clean:
	rm -rf build build-*
