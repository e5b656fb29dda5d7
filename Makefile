# SPDX-License-Identifier: Apache-2.0
# qkdgate. Targets: all unit check lint demo (see README.md).

BUILD  ?= build
CC     ?= cc
OPT    ?= -O2 -g
PKGS   := libmicrohttpd gnutls jansson uuid sqlite3 libsodium libcurl libcyaml yaml-0.1

WARN := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wcast-qual -Wwrite-strings \
	-Wstrict-prototypes -Wmissing-prototypes -Wformat=2 -Wvla -Wimplicit-fallthrough -Werror
# What the compiler at hand does not know is left out.
try   = $(shell echo 'int qg_probe;' | $(CC) -Werror $(1) -x c -c -o /dev/null - 2>/dev/null && echo '$(1)')
HARD := -D_FORTIFY_SOURCE=3 -fPIE $(foreach f,-fstack-protector-strong -fstack-clash-protection \
	-fcf-protection -ftrivial-auto-var-init=zero,$(call try,$(f)))
LINK := -pie -Wl,-z,relro,-z,now,-z,noexecstack

CPPFLAGS += -Iinclude -D_GNU_SOURCE
CFLAGS   += -std=c17 $(OPT) $(WARN) $(HARD) -pthread -MMD -MP $(shell pkg-config --cflags $(PKGS))
LDFLAGS  += $(LINK) -pthread
LDLIBS   += $(shell pkg-config --libs $(PKGS))

LAYERS  := base wire platform core north east south
LIB_SRC := $(foreach l,$(LAYERS),$(wildcard src/$(l)/*.c))
GEN_SRC := $(if $(wildcard db/*.sql),$(BUILD)/gen/migrations.c) \
	$(patsubst openapi/%.yaml,$(BUILD)/gen/openapi_%.c,$(wildcard openapi/*.yaml))
LIB_OBJ := $(LIB_SRC:%.c=$(BUILD)/obj/%.o) $(GEN_SRC:%.c=%.o)
APP_SRC := $(wildcard src/app/*.c)
APP_OBJ := $(APP_SRC:%.c=$(BUILD)/obj/%.o)
TOOLS   := $(patsubst src/tools/%.c,$(BUILD)/bin/%,$(wildcard src/tools/*.c))
UNIT    := $(patsubst tests/unit/test_%.c,$(BUILD)/unit/test_%,$(wildcard tests/unit/test_*.c))
LIB     := $(BUILD)/libqkdgate-core.a

.PHONY: all unit clean
all: $(TOOLS) $(if $(APP_SRC),$(BUILD)/bin/qkdgate)

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

$(BUILD)/gen/migrations.c: $(wildcard db db/*.sql) src/embed
	@mkdir -p $(@D)
	src/embed --migrations $(sort $(filter %.sql,$^)) > $@.tmp && mv $@.tmp $@

.SECONDARY: $(GEN_SRC)
$(BUILD)/gen/openapi_%.c: openapi/%.yaml src/embed
	@mkdir -p $(@D)
	src/embed $< > $@.tmp && mv $@.tmp $@

$(BUILD)/gen/%.o: $(BUILD)/gen/%.c
	$(CC) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

$(LIB): $(LIB_OBJ)
	@mkdir -p $(@D)
	@rm -f $@
	ar rcs $@ $^

$(BUILD)/bin/qkdgate: $(APP_OBJ) $(LIB)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

# A tool is src/tools/NAME.c, with more files in src/tools/NAME/ where it is larger.
.SECONDEXPANSION:
$(BUILD)/bin/%: $(BUILD)/obj/src/tools/%.o \
		$$(addprefix $(BUILD)/obj/,$$(addsuffix .o,$$(basename $$(wildcard src/tools/$$*/*.c)))) $(LIB)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(BUILD)/unit/test_%: tests/unit/test_%.c $(LIB)
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -o $@ $< $(LIB) $(LDFLAGS) -lcmocka $(LDLIBS)

# These run the simulator as it is built.
$(BUILD)/unit/test_source $(BUILD)/unit/test_sim: | $(BUILD)/bin/qkdgate-sim

unit: $(UNIT)
	@set -e; for t in $^; do echo "== $$t"; $$t; done

clean:
	rm -rf $(BUILD)

-include $(LIB_OBJ:.o=.d) $(APP_OBJ:.o=.d) $(UNIT:%=%.d) $(patsubst %.c,$(BUILD)/obj/%.d,$(wildcard src/tools/*.c src/tools/*/*.c))
