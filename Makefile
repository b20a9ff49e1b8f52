# mplua.  `make help` lists the targets.  Sources are found, not listed: a
# new file needs no line here.  Objects mirror their paths under $(BUILD).
BUILD   = build
PREFIX  = /usr/local
VERSION = 0.1.0
CFLAGS  = -O2 -g
WARN    = -Wall -Wextra -Wpedantic -Wshadow -Wconversion
SPEC    =
FILTER  =
SECONDS = 300

# One set of objects for the program, the module and the library: position
# independent, bound among themselves; the linker decides what is exported.
DEFS     = -std=c11 -D_GNU_SOURCE -Iruntime -Ilua -I$(BUILD)/lua \
           $(if $(ACCESS),-DCRASH_ACCESS)
CODEGEN  = -fPIC -fno-semantic-interposition -pthread
NOTING   = $(if $(ACCESS)$(TSAN),-fsanitize=thread -Wno-tsan)
SANFLAGS = -O1 -fsanitize=address,undefined -fno-sanitize-recover=all \
           -fno-omit-frame-pointer
COMPILE  = $(CC) $(DEFS) $(CODEGEN) $(LUA_CFLAGS) $(CFLAGS) $(WARN) \
           $(if $(WERROR),-Werror) $(if $(SAN),$(SANFLAGS)) $(NOTING) -MMD -MP
LINK     = $(CC) -pthread $(CFLAGS) $(if $(SAN),$(SANFLAGS)) \
           $(if $(TSAN),-fsanitize=thread) -Wl,-z,now $(LDFLAGS)

# Lua 5.4 by whichever name pkg-config knows it; the static library where
# there is one, so that the program does not depend on an installed Lua.
comma      := ,
PC         := pkg-config
LUA_PKG    := $(shell for p in lua5.4 lua-5.4 lua54 lua; do $(PC) --exists \
                "$$p >= 5.4 $$p < 5.5" 2>/dev/null && echo $$p && break; done)
LUA_CFLAGS := $(if $(LUA_PKG),$(shell $(PC) --cflags $(LUA_PKG)))
LUA_LIBS   := $(if $(LUA_PKG),$(shell $(PC) --libs --static $(LUA_PKG)))
LUA_NAME   := $(patsubst -l%,%,$(filter -llua%,$(LUA_LIBS)))
LUA_STATIC := $(if $(LUA_PKG),$(firstword $(wildcard $(addsuffix \
                /lib$(LUA_NAME).a,$(shell $(PC) --variable=libdir $(LUA_PKG)) \
                $(patsubst -L%,%,$(filter -L%,$(LUA_LIBS)))))))
LUA_LINK   := $(if $(LUA_STATIC),-Wl$(comma)--whole-archive $(LUA_STATIC) \
                -Wl$(comma)--no-whole-archive $(filter-out -llua%,$(LUA_LIBS)),$(LUA_LIBS))
say         = @echo '  $(1) $(if $(filter cc,$(1)),$<,$@)'; $(if $(V),set -x;)
need_lua    = $(if $(LUA_PKG),,$(error no Lua 5.4 headers: run scripts/deps))

RUNTIME := $(patsubst %.c,$(BUILD)/%.o,$(wildcard runtime/*/*.c))
BIND    := $(patsubst %.c,$(BUILD)/%.o,$(wildcard lua/bind/*.c))
CLI     := $(patsubst %.c,$(BUILD)/%.o,$(wildcard lua/cli/*.c))
EMBED   := $(BUILD)/lua/embed.o
SPECS   := $(patsubst %.c,$(BUILD)/%.o,$(wildcard spec/runtime/*.c))
CRASH   := $(patsubst %.c,$(BUILD)/%.o,$(wildcard spec/crash/*.c))
MODULES := $(wildcard lua/mp/*.lua)
LIBRARY := $(RUNTIME) $(BIND) $(EMBED) $(filter-out %/main.o,$(CLI))
OUTPUTS := $(BUILD)/mplua $(BUILD)/mp/core.so $(BUILD)/libmplua.a

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.PHONY: all demo test spec spec-c spec-lua crash access tsan \
        valgrind model storm stress bench fuzz lint san clean install \
        uninstall help FORCE

all: $(OUTPUTS) ## build/mplua, build/mp/core.so, build/libmplua.a

# The program shows Lua's API to C modules and nothing else, so that no
# name of ours can stand before a name in a library they load.
$(BUILD)/mplua: $(LIBRARY) $(BUILD)/lua/cli/main.o $(BUILD)/lua/api.list
	$(call say,link) $(LINK) -o $@ $(filter %.o,$^) \
	  -Wl,--dynamic-list=$(BUILD)/lua/api.list $(LUA_LINK)

# The module takes Lua's API from the program that loads it; it stays when the
# state is closed, since threads, and what is to be done at their end, do.
$(BUILD)/mp/core.so: $(RUNTIME) $(BIND) $(BUILD)/lua/module.map
	@mkdir -p $(@D)
	$(call say,link) $(LINK) -shared -Wl,-z,nodelete -o $@ $(filter %.o,$^) -lm \
	  -Wl,--version-script=$(BUILD)/lua/module.map

# The library is one object whose inner names are made local.
$(BUILD)/libmplua.a: $(LIBRARY)
	$(call say,link) $(LD) -r -o $(BUILD)/libmplua.o $^
	@objcopy -w -G 'mplua_*' -G luaopen_mp_core $(BUILD)/libmplua.o
	@rm -f $@ && $(AR) rcs $@ $(BUILD)/libmplua.o

$(BUILD)/spec/runtime_spec: $(SPECS) $(RUNTIME)
	$(call say,link) $(LINK) -o $@ $^ -lm

$(BUILD)/spec/crash/access.o: NOTING =
$(BUILD)/spec/crash_spec: $(CRASH) $(BUILD)/spec/runtime/harness.o $(RUNTIME)
	$(call say,link) $(LINK) -o $@ $^ -lm

$(BUILD)/%.o: %.c
	$(need_lua)@mkdir -p $(@D)
	$(call say,cc) $(COMPILE) -c -o $@ $<

# The Lua modules inside the program: a list of names, and their bytecode by
# the assembler (see lua/embed.c).  Rewritten only when the set changes.
$(EMBED): DEFS += -DMODULES='"$(BUILD)/lua/mp/"'
$(EMBED): $(MODULES:%.lua=$(BUILD)/%.luac) $(BUILD)/lua/modules.inc
$(BUILD)/lua/compile: $(BUILD)/lua/compile.o
	$(call say,link) $(LINK) -o $@ $^ $(LUA_LINK)
$(BUILD)/%.luac: %.lua $(BUILD)/lua/compile
	@mkdir -p $(@D)
	@$(BUILD)/lua/compile $< $@ =mp/$(<F)
$(BUILD)/lua/modules.inc: FORCE
	@mkdir -p $(@D)
	@for m in $(basename $(notdir $(MODULES))); do echo "MODULE($$m)"; done >$@.new
	@cmp -s $@.new $@ && rm $@.new || mv $@.new $@
$(BUILD)/lua/api.list:
	@mkdir -p $(@D) && echo '{ lua_*; luaL_*; luaopen_*; };' >$@
$(BUILD)/lua/module.map:
	@mkdir -p $(@D) && echo '{ global: luaopen_mp_*; local: *; };' >$@

# These two start on a bare machine, where the variables above are empty
# until scripts/deps has run: hence the second make.
test: ## install what is missing, build, run every spec
	@sh scripts/deps
	@$(MAKE) --no-print-directory spec
demo: ## install what is missing, build, count words, compare times
	@sh scripts/deps
	@$(MAKE) --no-print-directory all
	@sh scripts/demo $(BUILD)/mplua

# What is killed at each store, and what runs under the thread sanitizer,
# are built apart.
PROOF = $(BUILD)/spec/runtime_spec $(BUILD)/spec/crash_spec
$(BUILD)/access/spec/crash_spec: FORCE
	@$(MAKE) --no-print-directory BUILD=$(BUILD)/access ACCESS=1 $@
$(BUILD)/tsan/spec/runtime_spec: FORCE
	@$(MAKE) --no-print-directory BUILD=$(BUILD)/tsan TSAN=1 $@
apart = $(if $(ACCESS)$(TSAN),,$(BUILD)/access/spec/crash_spec \
          $(BUILD)/tsan/spec/runtime_spec)

spec: all $(PROOF) $(apart)
	@sh scripts/spec -b $(BUILD) -f '$(FILTER)' $(if $(FILTER),c crash lua, \
	  -p 'valgrind model' c crash access tsan storm lua)
stress: all $(PROOF) $(apart) ## for hours: every point, storms (SECONDS each)
	@LONG=$(SECONDS) sh scripts/spec -b $(BUILD) c crash access tsan \
	  valgrind model storm lua
spec-c: $(BUILD)/spec/runtime_spec ## the specs in C (FILTER=words of a name)
	@sh scripts/spec -b $(BUILD) -f '$(FILTER)' c
crash: $(BUILD)/spec/crash_spec ## kill before every instruction (FILTER=words)
access: $(BUILD)/access/spec/crash_spec ## ... before every store, on any machine
tsan: $(BUILD)/tsan/spec/runtime_spec ## what runs in threads, races detected
valgrind: $(BUILD)/spec/runtime_spec ## a selection of specs in C under valgrind
model: ## the models of the protocols, by spin
storm: all ## kills, stops, limits under the whole API, some seconds each
crash access tsan valgrind model storm:
	@sh scripts/spec -b $(BUILD) -f '$(FILTER)' $@
spec-lua: all ## the specs in Lua (SPEC=file FILTER=pattern)
	@sh scripts/spec -b $(BUILD) -f '$(FILTER)' lua $(SPEC)
san: ## every spec again, under the address and undefined sanitizers
	@$(MAKE) --no-print-directory BUILD=$(BUILD)/san SAN=1 all \
	  $(BUILD)/san/spec/runtime_spec
	@sh scripts/spec -b $(BUILD)/san -f '$(FILTER)' c lua
bench: all ## medians beside Python's, and their ratios
	@MPLUA=$(BUILD)/mplua sh scripts/bench/run.sh
$(BUILD)/fuzz_%: spec/fuzz/fuzz_%.c $(wildcard runtime/*/*.c lua/bind/*.c)
	clang $(DEFS) $(LUA_CFLAGS) -g -O1 -fsanitize=fuzzer,address,undefined \
	  -fno-sanitize-recover=undefined -pthread -o $@ $^ $(LUA_LINK)
fuzz: $(BUILD)/fuzz_loads $(BUILD)/fuzz_wire ## decoder and wire under libFuzzer (clang)
	@mkdir -p $(BUILD)/corpus/loads $(BUILD)/corpus/wire
	$(BUILD)/fuzz_loads -max_total_time=60 $(BUILD)/corpus/loads spec/fuzz/loads
	$(BUILD)/fuzz_wire -max_total_time=60 -dict=spec/fuzz/wire.dict \
	  $(BUILD)/corpus/wire spec/fuzz/wire
lint: ## floors, globals, syntax, the README's tree, marks left behind
	@sh scripts/lint
install: all ## into PREFIX (/usr/local); DESTDIR is honoured
	@sh scripts/install -b $(BUILD) -p '$(DESTDIR)' -v $(VERSION) \
	  -l '$(LUA_PKG)' $(PREFIX)
uninstall: ## take away what install put there
	@sh scripts/install -u -p '$(DESTDIR)' $(PREFIX)
clean: ## remove what was built
	rm -rf $(BUILD)
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-10s %s\n",$$1,$$2}' Makefile

-include $(RUNTIME:.o=.d) $(BIND:.o=.d) $(CLI:.o=.d) $(EMBED:.o=.d) $(SPECS:.o=.d) \
  $(CRASH:.o=.d)
