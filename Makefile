# SPDX-License-Identifier: Apache-2.0
# qkdgate. What there is to make stands in README.md.

BUILD  ?= build
CC     ?= cc
OPT    ?= -O2 -g
# Sanitizers or analyzers, for objects and binaries.
EXTRA  ?=
# `make V=1` shows the commands.
Q      := $(if $(V),,@)
PREFIX ?= /usr/local
PYTHON := /usr/bin/python3
PKGS   := libmicrohttpd gnutls jansson uuid sqlite3 libsodium libcurl libcyaml yaml-0.1 libseccomp

# --- flags: what the compiler at hand does not know is left out --------------

hash := \#
try  = $(shell echo '$(hash)include <stdlib.h>' | $(CC) -Werror $(OPT) $(1) -x c -c -o /dev/null - 2>/dev/null && echo '$(1)')
WARN := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wsign-conversion -Wcast-qual -Wwrite-strings \
	-Wstrict-prototypes -Wmissing-prototypes -Wformat=2 -Wvla -Wimplicit-fallthrough -Werror
HARD := -fPIE -U_FORTIFY_SOURCE $(foreach f,-D_FORTIFY_SOURCE=3 -fstack-protector-strong \
	-fstack-clash-protection -fcf-protection -ftrivial-auto-var-init=zero,$(call try,$(f)))
LINK := -pie -Wl,-z,relro,-z,now,-z,noexecstack -Wl,--as-needed

CPPFLAGS += -Iinclude -D_GNU_SOURCE
CFLAGS   += -std=c17 $(OPT) $(WARN) $(HARD) $(EXTRA) -pthread -MMD -MP \
	$(shell pkg-config --cflags $(PKGS) 2>/dev/null)
LDFLAGS  += $(LINK) $(EXTRA) -pthread
LDLIBS   += $(shell pkg-config --libs $(PKGS) 2>/dev/null) -lm

# --- what is built from what -------------------------------------------------

LAYERS  := base wire platform core north east south
LIB_SRC := $(foreach l,$(LAYERS) client,$(wildcard src/$(l)/*.c))
GEN_SRC := $(if $(wildcard db/*.sql),$(BUILD)/gen/migrations.c) \
	$(patsubst openapi/%.yaml,$(BUILD)/gen/openapi_%.c,$(wildcard openapi/*.yaml)) $(BUILD)/gen/dashboard.c
APP_SRC := $(wildcard src/app/*.c)
LIB_OBJ := $(LIB_SRC:%.c=$(BUILD)/obj/%.o) $(GEN_SRC:%.c=%.o)
APP_OBJ := $(APP_SRC:%.c=$(BUILD)/obj/%.o)
LIB     := $(BUILD)/libqkdgate-core.a
# What libqkdgate is made of.
CLIENT  := $(wildcard src/client/*.c) $(wildcard src/base/*.c) $(wildcard src/wire/etsi004*.c) \
	$(wildcard src/wire/json_text*.c src/wire/http_text*.c) $(wildcard src/platform/tls_*.c) \
	src/platform/http_client.c src/platform/http_links.c src/platform/log.c src/platform/log_out.c \
	src/platform/request_id.c src/platform/keyfile.c
SO      := libqkdgate.so.0
TOOLS   := $(patsubst src/tools/%.c,$(BUILD)/bin/%,$(wildcard src/tools/*.c))
UNIT    := $(patsubst tests/unit/%.c,$(BUILD)/unit/%,$(wildcard tests/unit/test_*.c)) \
	$(patsubst tests/fuzz/%.c,$(BUILD)/unit/%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ    := $(patsubst tests/fuzz/%.c,$(BUILD)/targets/%,$(wildcard tests/fuzz/fuzz_*.c))

.PHONY: all programs unit e2e chaos soak faults monitoring-test check fuzz fuzz-targets models bench bench-plots bench-programs bench-quick bench-instructions demo demo-down demo-restart lint asan tsan valgrind fanalyzer scan-build install clean
.SECONDARY:
all: $(if $(APP_SRC),$(BUILD)/bin/qkdgate) $(TOOLS) $(BUILD)/lib/$(SO)

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(if $(V),,@echo "  CC    $<")
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

$(BUILD)/gen/%.o: $(BUILD)/gen/%.c
	$(if $(V),,@echo "  CC    $<")
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

$(BUILD)/gen/migrations.c: $(wildcard db db/*.sql) src/embed
	@mkdir -p $(@D)
	$(Q)src/embed --migrations $(sort $(filter %.sql,$^)) > $@.tmp && mv $@.tmp $@

PAGES := $(wildcard src/dashboard/*)
$(BUILD)/gen/dashboard.c: src/dashboard $(PAGES) src/embed
	@mkdir -p $(@D)
	$(Q)src/embed --pages $(PAGES) > $@.tmp && mv $@.tmp $@

$(BUILD)/gen/openapi_%.c: openapi/%.yaml src/embed
	@mkdir -p $(@D)
	$(Q)src/embed $< > $@.tmp && mv $@.tmp $@

$(LIB): $(LIB_OBJ)
	@mkdir -p $(@D)
	@rm -f $@
	$(Q)ar rcs $@ $^

$(BUILD)/pic/%.o: %.c
	@mkdir -p $(@D)
	$(if $(V),,@echo "  CC    $< (shared)")
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS:-fPIE=-fPIC) -c -o $@ $<

$(BUILD)/lib/$(SO): $(CLIENT:%.c=$(BUILD)/pic/%.o) src/client/libqkdgate.map
	@mkdir -p $(@D)
	$(if $(V),,@echo "  LD    $@")
	$(Q)$(CC) -shared -Wl,-soname,$(SO) -Wl,--version-script=src/client/libqkdgate.map -Wl,-z,defs \
		$(LDFLAGS:-pie=) -o $@ $(filter %.o,$^) $(LDLIBS)

$(BUILD)/bin/qkdgate: $(APP_OBJ) $(LIB)
	@mkdir -p $(@D)
	$(if $(V),,@echo "  LD    $@")
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

# A tool is src/tools/NAME.c and what is in the folder src/tools/NAME, if any.
define tool
$(BUILD)/bin/$(1): $(patsubst %.c,$(BUILD)/obj/%.o,src/tools/$(1).c $(wildcard src/tools/$(1)/*.c)) $(LIB)
	@mkdir -p $$(@D)
	$(if $(V),,@echo "  LD    $$@")
	$(Q)$$(CC) $$(LDFLAGS) -o $$@ $$^ $$(LDLIBS)
endef
$(foreach t,$(TOOLS),$(eval $(call tool,$(notdir $(t)))))

$(BUILD)/unit/%: tests/unit/%.c $(LIB)
	@mkdir -p $(@D)
	$(if $(V),,@echo "  LD    $@")
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -o $@ $< $(filter %.o,$^) $(LIB) $(LDFLAGS) -lcmocka $(LDLIBS)

$(BUILD)/unit/test_sandbox: $(BUILD)/obj/src/app/sandbox.o

# Calls of the library that tests/unit/support/refusal.h refuses.
REFUSED := malloc calloc realloc reallocarray strdup strndup pthread_create \
	$(patsubst %,pthread_%_init,mutex cond rwlock) $(patsubst %,qg_%,secret_new sealer_seal sealer_unseal anchor_write)
$(patsubst %,$(BUILD)/unit/test_%,refused_keys refused_streams kms etsi020): \
	private LDFLAGS += $(REFUSED:%=-Wl,--wrap=%)
$(BUILD)/unit/test_refused_keys $(BUILD)/unit/test_refused_streams: private LDFLAGS += -Wl,--wrap=qg_core_start

# The corpus of each fuzz target is replayed like a unit program.
$(BUILD)/unit/fuzz_%: tests/fuzz/fuzz_%.c tests/fuzz/replay.c $(wildcard tests/fuzz/*.h) $(LIB)
	@mkdir -p $(@D)
	$(if $(V),,@echo "  LD    $@")
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS:-M%=) -o $@ $(filter %.c,$^) $(LIB) $(LDFLAGS) $(LDLIBS)

$(BUILD)/targets/fuzz_%: tests/fuzz/fuzz_%.c $(BUILD)/targets/mutate.o $(wildcard tests/fuzz/*.h) $(LIB)
	@mkdir -p $(@D)
	$(if $(V),,@echo "  LD    $@")
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS:-M%=) -fsanitize=fuzzer -o $@ $< $(BUILD)/targets/mutate.o $(LIB) $(LDFLAGS) $(LDLIBS)

# What it runs itself is nothing that an input covers.
$(BUILD)/targets/mutate.o: tests/fuzz/mutate.c tests/fuzz/fuzz.h
	@mkdir -p $(@D)
	$(if $(V),,@echo "  CC    $<")
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS:-M%=) -fno-sanitize=fuzzer-no-link -c -o $@ $<

# Between a program and what it calls, for tests of what fails (LD_PRELOAD).
$(BUILD)/fault/libfault.so: tests/fault/faults.c tests/fault/faults.h
	@mkdir -p $(@D)
	$(if $(V),,@echo "  LD    $@")
	$(Q)$(CC) -std=gnu17 -O2 -g $(filter-out -Wpedantic -Wcast-qual,$(WARN)) -Wno-nonnull-compare -fno-builtin -fPIC \
		-D_GNU_SOURCE -shared -o $@ $< -ldl

# These run the simulator as it is built.
$(BUILD)/unit/test_source $(BUILD)/unit/test_sim: | $(BUILD)/bin/qkdgate-sim

-include $(shell test -d $(BUILD) && find $(BUILD)/obj $(BUILD)/pic $(BUILD)/unit $(BUILD)/gen -name '*.d' 2>/dev/null)

# --- tests -------------------------------------------------------------------
# Packages may be missing when make begins: it starts again with all of them.

FAULTS := $(BUILD)/fault/libfault.so
programs: all $(FAULTS) $(UNIT)
	@:

unit: $(UNIT)
	@RUNNER='$(RUNNER)' tests/run-units $(BUILD)/unit-logs $^

# E2E chooses: make e2e E2E='-k rule_09', make e2e E2E=tests/e2e/test_shows.py
e2e:
	@tests/deps/install build test browser
	@$(MAKE) --no-print-directory all $(FAULTS)
ifeq ($(E2E),)
	@QKDGATE_BUILD=$(BUILD) tests/run-e2e $(BUILD)/e2e-logs $(wildcard tests/e2e/test_*.py)
else
	@PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 QKDGATE_BUILD=$(BUILD) $(PYTHON) -m pytest -p no:cacheprovider \
		$(if $(filter tests/%,$(E2E)),,tests/e2e) $(E2E)
endif

# docs/dashboard.png anew.
.PHONY: dashboard-picture
dashboard-picture:
	@tests/deps/install build test browser
	@$(MAKE) --no-print-directory all
	@PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 QKDGATE_BUILD=$(BUILD) $(PYTHON) -m pytest -p no:cacheprovider tests/e2e/picture.py

# Longer runs of what the tests do for some seconds.
MINUTES ?= 10
chaos soak:
	@tests/deps/install build test
	@$(MAKE) --no-print-directory all $(FAULTS)
	@PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 QKDGATE_BUILD=$(BUILD) QKDGATE_SOAK_MINUTES=$(MINUTES) \
		QKDGATE_CHAOS_S=$$(($(MINUTES) * 60)) $(PYTHON) -m pytest -s -p no:cacheprovider \
		tests/e2e/$(if $(filter chaos,$@),test_chaos,soak).py

# Rules and dashboard in a real Prometheus.
monitoring-test:
	@tests/deps/install build test monitoring
	@$(MAKE) --no-print-directory all
	@PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 QKDGATE_BUILD=$(BUILD) $(PYTHON) -m pytest -p no:cacheprovider \
		tests/e2e/monitoring.py

# Every call that may fail does, each call site in turn; hours. OPTIONS: tests/fault/sweep.py --help
faults:
	@tests/deps/install build test
	@$(MAKE) --no-print-directory all $(FAULTS)
	@QKDGATE_BUILD=$(BUILD) $(PYTHON) tests/fault/sweep.py $(OPTIONS)

# Whether it would find a gateway that is wrong.
.PHONY: faults-prove
faults-prove:
	@tests/deps/install build test
	@tests/fault/prove $(BUILD)

# Each attack of tests/e2e/test_dos.py alone, with the figures.
.PHONY: dos
dos:
	@tests/deps/install build test
	@$(MAKE) --no-print-directory all
	@PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 QKDGATE_BUILD=$(BUILD) QKDGATE_DOS=full $(PYTHON) -m pytest -s -p no:cacheprovider \
		tests/e2e/test_dos.py

# Sends what openapi/ says, and what it does not, to running gateways: needs PyPI.
SCHEMATHESIS_SECONDS ?= 60
.PHONY: schemathesis
schemathesis:
	@tests/deps/install build schemathesis
	@$(MAKE) --no-print-directory all
	@QKDGATE_BUILD=$(BUILD) $(PYTHON) tests/openapi/run.py $(SCHEMATHESIS_SECONDS)

check:
	@tests/deps/install build test browser
	@$(MAKE) --no-print-directory programs
	@tests/check $(BUILD) $(UNIT)

# What they add to the code makes gcc warn of more than we wrote.
SANITIZE := -Wno-error -fno-omit-frame-pointer -fno-sanitize-recover=all
# E2E= runs end-to-end files instead of the unit programs, with gateways built so.
asan: EXTRA := -fsanitize=address,undefined $(SANITIZE)
tsan: EXTRA := -fsanitize=thread $(SANITIZE)
tsan: export TSAN_OPTIONS := suppressions=$(CURDIR)/tests/tsan.supp history_size=4
asan tsan:
	@tests/deps/install build
	@$(MAKE) --no-print-directory BUILD=build/$@ OPT='-O1 -g' EXTRA='$(EXTRA)' $(if $(E2E),e2e,all unit)

# Lines and branches per layer; E2E= chooses files, E2E=none leaves them all out.
.PHONY: coverage
coverage:
	@tests/deps/install build test coverage
	@$(MAKE) --no-print-directory CC=gcc BUILD=build/$@ OPT='-O1 -g' \
		EXTRA='--coverage -fprofile-update=atomic -DQG_COVERAGE -Wno-error' programs
	@tests/coverage/run build/$@ '$(E2E)' $(UNIT:$(BUILD)/%=build/$@/%)

# E2E= runs end-to-end files instead, every gateway under valgrind. Left out are the program that filters
# its own system calls, and the one that looks at memory that was given back.
MEMCHECK := valgrind -q --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite \
	--show-leak-kinds=definite --suppressions=$(CURDIR)/tests/valgrind.supp
NO_MEMCHECK := $(BUILD)/unit/test_sandbox $(BUILD)/unit/test_tls_wipe
valgrind:
	@tests/deps/install build analysis
ifeq ($(E2E),)
	@UNIT_JOBS=2 $(MAKE) --no-print-directory unit UNIT='$(filter-out $(NO_MEMCHECK),$(UNIT))' \
		RUNNER='$(MEMCHECK) --child-silent-after-fork=yes'
else
	@QKDGATE_UNDER='$(MEMCHECK)' $(MAKE) --no-print-directory e2e
endif

# Left out is what gcc 12 gets wrong: lists that own, pointers into tables. ASan sees both.
fanalyzer:
	@tests/deps/install build
	@$(MAKE) --no-print-directory CC=gcc BUILD=build/$@ OPT='-O1 -g' EXTRA='-fanalyzer \
		-Wno-analyzer-malloc-leak -Wno-analyzer-null-dereference' all

# `make fuzz FUZZ_SECONDS=600 FUZZ_TARGETS='fuzz_router fuzz_config'`
FUZZ_SECONDS ?= 20
FUZZ_TARGETS ?= $(notdir $(FUZZ))
fuzz:
	@tests/deps/install build fuzz
	@$(MAKE) --no-print-directory CC=clang BUILD=build/$@ OPT='-O1 -g' \
		EXTRA='-fsanitize=fuzzer-no-link,address,undefined $(SANITIZE)' fuzz-targets
	@tests/fuzz/run build/$@ $(FUZZ_SECONDS) $(FUZZ_TARGETS:%=build/$@/targets/%)

fuzz-targets: $(FUZZ)
	@:

# The protocols as models, each also broken on purpose.
models:
	@tests/deps/install models
	@tests/models/run $(abspath $(BUILD))/models

scan-build:
	@tests/deps/install build analysis
	@rm -rf build/$@
	$(firstword $(notdir $(wildcard /usr/bin/scan-build /usr/bin/scan-build-*)) scan-build) --status-bugs -disable-checker deadcode.DeadStores \
		-o build/$@/report $(MAKE) --no-print-directory BUILD=build/$@ all

lint:
	@tests/deps/install build lint
	@$(MAKE) --no-print-directory all
	@CFLAGS='$(filter-out -M%,$(CFLAGS))' tests/lint/run $(BUILD)

# --- the demo ----------------------------------------------------------------

demo:
	@tests/deps/install build demo
	@$(MAKE) --no-print-directory all
	@QKDGATE_BUILD=$(BUILD) $(PYTHON) tests/demo/demo.py up

demo-down demo-restart:
	@QKDGATE_BUILD=$(BUILD) $(PYTHON) tests/demo/demo.py $(@:demo-%=%) $(NAME)

# --- containers ----------------------------------------------------------------

.PHONY: docker-images docker-test
docker-images:
	@docker/build $(TAG)

docker-test:
	@tests/docker/run $(BUILD) $(DOCKER_TEST)

# --- speed -------------------------------------------------------------------

$(BUILD)/bench/%: bench/%.c bench/link.c bench/measure.c
	@mkdir -p $(@D)
	$(if $(V),,@echo "  LD    $@")
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS:-M%=) -o $@ $^ $(LDFLAGS) $(LDLIBS) -lm

bench-programs: all $(BUILD)/bench/load $(BUILD)/bench/ceiling

bench: bench-programs
	@QKDGATE_BUILD=$(BUILD) $(PYTHON) bench/run.py

# docs/img from the last whole run.
bench-plots:
	$(PYTHON) bench/plot.py $(BUILD)/bench/full.json

# With the limits of bench/gate.json.
bench-quick: bench-programs
	@QKDGATE_BUILD=$(BUILD) $(PYTHON) bench/gate.py

bench-instructions: bench-programs
	@tests/deps/install build analysis
	@QKDGATE_BUILD=$(BUILD) $(PYTHON) bench/instructions.py

# --- installing --------------------------------------------------------------

MAN := $(wildcard docs/man/*.[1358])
install: $(BUILD)/bin/qkdgate $(BUILD)/bin/qkdgatectl $(BUILD)/bin/qkdgate-get $(BUILD)/lib/$(SO)
	for p in $(filter $(BUILD)/bin/%,$^); do install -D -m 755 $$p $(DESTDIR)$(PREFIX)/bin/$${p##*/} || exit 1; done
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions
	$(BUILD)/bin/qkdgatectl completion > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/qkdgatectl
	install -D -m 644 $(BUILD)/lib/$(SO) $(DESTDIR)$(PREFIX)/lib/$(SO)
	ln -sf $(SO) $(DESTDIR)$(PREFIX)/lib/libqkdgate.so
	install -d $(DESTDIR)$(PREFIX)/lib/pkgconfig $(DESTDIR)$(PREFIX)/include/qkdgate
	install -m 644 include/qkdgate/client.h include/qkdgate/error.h $(DESTDIR)$(PREFIX)/include/qkdgate
	sed 's|@PREFIX@|$(PREFIX)|g; s|@VERSION@|$(shell sed -n 's/.*QG_VERSION "\(.*\)"/\1/p' include/qkdgate/version.h)|' \
		src/client/libqkdgate.pc.in > $(DESTDIR)$(PREFIX)/lib/pkgconfig/libqkdgate.pc
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	sed 's|@PREFIX@|$(PREFIX)|g' docs/systemd/qkdgate.service > $(DESTDIR)$(PREFIX)/lib/systemd/system/qkdgate.service
	install -D -m 644 docs/systemd/qkdgate.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/qkdgate.conf
	for m in $(filter-out %-sim.1,$(MAN)); do \
		install -D -m 644 $$m $(DESTDIR)$(PREFIX)/share/man/man$${m##*.}/$${m##*/} || exit 1; done

clean:
	rm -rf $(BUILD)
