# `make` alone lists the targets. Everything that they install goes into .cache.
.DEFAULT_GOAL := help
SHELL := /bin/bash

FUNCTIONS := provision deprovision reconcile
GO        ?= go
LAB       := infra/lab
BUILD_DIR := build
# The functions' processor by Lambda's name, as the stack's parameter Architecture: arm64 or x86_64.
ARCHITECTURE ?= arm64
LAMBDA_GOARCH = $(or $(if $(filter arm64,$(ARCHITECTURE)),arm64),$(if $(filter x86_64,$(ARCHITECTURE)),amd64),$(error ARCHITECTURE is $(ARCHITECTURE), want arm64 or x86_64))
# The list of accounts for ReconcileAccounts and AllowedAccounts as @accounts.txt; not there in most repositories.
ACCOUNTS_FILE := accounts.txt
# Static and without the old runtime's RPC mode: a smaller binary that starts on any host. -s drops what debuggers read; without
# -dwarf=false it would be made first, a tenth of the compiler's time.
# A release's version is linked in. Go's own record of the commit is left out there: it depends on the tags of the checkout.
RELEASE     :=
MODULE      := github.com/vault-ec2-provisioner/vault-ec2-provisioner
BUILD_FLAGS = -trimpath -tags lambda.norpc,nethttpomithttp2 -gcflags=all=-dwarf=false \
  -ldflags '-s -w$(if $(RELEASE), -X $(MODULE)/internal/version.release=$(RELEASE))'$(if $(RELEASE), -buildvcs=false)
# The commands are built as the functions are, for this machine, so that what both import is compiled once.
HOST_GO     := CGO_ENABLED=0 GOOS= GOARCH= $(GO)
RUN         := cd $(LAB) && $(HOST_GO) run $(BUILD_FLAGS)

# For make reconcile, teardown, doctor and render; set here so that the environment does not set them.
MODE     := detect
INSTANCE :=
PROFILE  :=
FORCE    :=
GONE_ACCOUNT  :=
GONE_INSTANCE :=
AT_MOST       :=
STACK    :=
FACTS    :=
YES      :=
VERSIONS :=
SCENES   :=
PROFILES :=

# The program that the lab runs as Vault: a path to vault or bao, or a version of infra/lab/vaultserver/versions.go. Empty: a
# supported vault on the PATH, else one built from Vault's Go module. OpenBao needs its plugin of the AWS auth method besides.
VAULT          :=
BAO_AWS_PLUGIN :=
export LAB_VAULT          := $(or $(abspath $(wildcard $(VAULT))),$(VAULT))
export LAB_PROFILES       := $(PROFILES)
export LAB_BAO_AWS_PLUGIN := $(abspath $(BAO_AWS_PLUGIN))

.PHONY: help build build-functions $(BUILD_DIR)/vault-ec2 build-lab build-ProvisionFunction build-DeprovisionFunction build-ReconcileFunction prepare test test-unit test-integration browser report-picture matrix lint validate soak bench bench-plots dashboard dashboard-plots race demo lab reconcile teardown doctor render golden fuzz deploy package release-snapshot clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: build-functions ## build the functions into build/<function>/bootstrap (GOARCH=arm64 make build for Lambda's arm64), and build/vault-ec2 for this machine
	$(build-command)

build-functions:
	@for f in $(FUNCTIONS); do \
	  CGO_ENABLED=0 $(GO) build $(BUILD_FLAGS) -o $(BUILD_DIR)/$$f/bootstrap ./functions/$$f && \
	  $(if $(wildcard $(ACCOUNTS_FILE)),cp '$(ACCOUNTS_FILE)',rm -f) $(BUILD_DIR)/$$f/accounts.txt || exit 1; done

COMMAND       := $(BUILD_DIR)/vault-ec2
build-command = @$(HOST_GO) build $(BUILD_FLAGS) -o $(COMMAND) ./infra/vault-ec2

$(COMMAND):
	$(build-command)

# sam build calls these targets: template.yaml names this file as the functions' build method.
build-ProvisionFunction build-DeprovisionFunction build-ReconcileFunction:
	@CGO_ENABLED=0 GOOS=linux GOARCH=$(LAMBDA_GOARCH) $(GO) build $(BUILD_FLAGS) -o '$(or $(ARTIFACTS_DIR),$(error ARTIFACTS_DIR is not set: sam build calls this))/bootstrap' \
	  ./functions/$(shell echo '$(@:build-%Function=%)' | tr A-Z a-z)
	@$(if $(wildcard $(ACCOUNTS_FILE)),cp '$(ACCOUNTS_FILE)' '$(ARTIFACTS_DIR)/accounts.txt')

test: test-unit validate test-integration ## run all tests: unit tests, template checks, integration tests on real parts (VAULT=/path/to/vault: with that server)

test-unit: ## run the tests that need only Go; the simulation once with the race detector and once in full
	$(GO) test -race -short ./...
	$(GO) test -count=1 ./internal/simulation -rapid.checks=$(or $(CHECKS),4000)

prepare: ## find or build Vault, and fetch the lab's other programs, as the other targets do when they need them
	@$(RUN) ./cmd/prepare

test-integration: build prepare browser ## run the tests against real Vault, moto, DynamoDB Local and the built binaries
	cd $(LAB) && $(GO) test -race -count=1 -timeout 40m $$($(GO) list ./... | grep -vE '/lab/(stack|bootstrap|access|awsmodel)$$')

browser: ## find Chromium, which the tests of vault-ec2 report drive, or install it (on Debian, as root; CHROMIUM=/path/to/chromium: that one)
	@for b in "$$CHROMIUM" chromium chromium-browser google-chrome google-chrome-stable; do test -n "$$b" && command -v "$$b" >/dev/null && exit 0; done; \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo 'installing Chromium (first run only)' >&2; apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null; \
	  else echo 'there is no Chromium: install it (on Debian: sudo apt-get install chromium), or set CHROMIUM to its path' >&2; exit 1; fi

report-picture: $(COMMAND) browser ## draw the picture of docs/report.md again
	cd $(LAB) && PICTURE=$(abspath docs/report.png) $(GO) test -count=1 -run TestPage_Picture ./browser

matrix: build prepare ## run the integration tests on several versions of Vault, and print a table (VERSIONS="1.20.4 /path/to/bao": on these)
	@$(RUN) ./cmd/lab matrix $(VERSIONS)

lint: ## run the linters, at their pinned versions, over the product, the lab and the workflows
	$(GO) tool -modfile=infra/tools/go.mod golangci-lint run ./...
	cd $(LAB) && $(GO) tool -modfile=../tools/go.mod golangci-lint run ./...
	cd $(LAB)/standin && $(GO) tool -modfile=../../tools/go.mod golangci-lint run ./...
	$(GO) tool -modfile=infra/tools/actionlint/go.mod actionlint -shellcheck= -pyflakes= .github/workflows/*.yml

validate: build prepare ## check everything that is deployed, without an account: cfn-lint, the tests of the templates and of Vault's set-up, each request of the functions against AWS's models
	$(RUN) ./cmd/lab validate
	cd $(LAB) && $(GO) test -count=1 -timeout 20m ./stack ./bootstrap ./access ./awsmodel

soak: build ## run a fleet that comes and goes under faults (FOR=30m INSTANCES=500; CLUSTER=1: on three nodes of Vault that go down and come back); then all must agree
	@$(RUN) ./cmd/lab soak -for $(or $(FOR),30m) -instances $(or $(INSTANCES),500) $(if $(CLUSTER),-cluster)

bench: build ## measure launch storms, cold starts, the comparison of a fleet and the race for the first login, and write the benchmarks' pages and plots (FULL=true: 50,000 and 100,000 too; QUICK=1: only counts calls)
	@$(RUN) ./cmd/bench $(if $(FULL),-full) $(if $(QUICK),-quick,-write && $(HOST_GO) run $(BUILD_FLAGS) ./cmd/lab race)

bench-plots: ## draw the plots and write the tables of the last run's results again, without measuring
	@$(RUN) ./cmd/bench -redraw

dashboard: build prepare ## record the metrics of a storm, an outage of Vault and a quiet day, and draw the dashboard's pictures of docs/metrics.md (SCENES="storm": only these)
	@$(RUN) ./cmd/lab dashboard $(SCENES)

dashboard-plots: ## draw these pictures again, without recording
	@$(RUN) ./cmd/lab dashboard -redraw

race: build ## measure how many instances log in at the first try, and how long the others wait, as a table
	@$(RUN) ./cmd/lab race

# Functions and demo compile while Vault's modules are fetched and its server is built. All need the standard library, which two
# builds at once would compile twice: hence the first line.
demo: ## show and check one instance's whole life in the terminal
	@cd $(LAB) && $(HOST_GO) build $(BUILD_FLAGS) -o /dev/null ./cmd/prepare
	@$(MAKE) --no-print-directory -j2 build-lab prepare
	@cd $(LAB) && ../../$(BUILD_DIR)/lab demo

build-lab: build
	@cd $(LAB) && $(HOST_GO) build $(BUILD_FLAGS) -o ../../$(BUILD_DIR)/lab ./cmd/lab

lab: build ## start the same world and keep it running, to try things out (PROFILES=active: without profiles, for vault-ec2 apply --lab)
	@$(RUN) ./cmd/lab up

# The command finds the function: of a deployed stack in your configured account and region, or of the lab that runs.
OF = $(if $(STACK),--stack '$(STACK)',--lab)

reconcile: $(COMMAND) ## compare the fleet; MODE=correct repairs it (INSTANCE=i-… PROFILE=… FORCE=true); GONE_ACCOUNT=… and GONE_INSTANCE=i-… with AT_MOST=n remove what no longer exists; of make lab, or of STACK=<name>
	@$(COMMAND) reconcile $(OF) --mode '$(MODE)' $(addprefix --instance ,$(INSTANCE)) $(if $(PROFILE),--profile '$(PROFILE)') $(if $(FORCE),--force='$(FORCE)') \
	  $(addprefix --gone-account ,$(GONE_ACCOUNT)) $(addprefix --gone-instance ,$(GONE_INSTANCE)) $(if $(AT_MOST),--at-most '$(AT_MOST)')

teardown: $(COMMAND) ## remove everything that a deployment made in Vault, also of running instances; asks for its name (YES=<name> answers); of make lab, or of STACK=<name>
	@$(COMMAND) teardown $(OF) $(if $(YES),--yes '$(YES)')

doctor: $(COMMAND) ## check everything that the functions need; of make lab, or of STACK=<name>
	@$(COMMAND) doctor $(OF)

render: $(COMMAND) ## show what a PROFILE would write to Vault and what the guard reports, for INSTANCE=i-… in EC2, FACTS=file.json, or a made-up instance
	@$(COMMAND) render $(addprefix --profile ,$(PROFILE)) $(addprefix --instance ,$(INSTANCE)) $(addprefix --facts ,$(FACTS))

golden: ## write the golden files of profiles and commands, the user data of instances, the tables of docs/configuration.md and of the templates' updates
	$(GO) test ./templates ./infra/vault-ec2 ./infra/vault-ec2/internal/ask ./infra/vault-ec2/internal/render ./infra/vault-ec2/internal/tryout ./infra/instance ./internal/settings -update
	cd $(LAB) && $(GO) test ./stack -run TestUpdates_DoWhatThePageSays -update

fuzz: ## run each fuzz target for a minute (FOR=30m for longer)
	@for t in $$(grep -rlE '^func Fuzz' --include='*_test.go' internal | xargs -n1 dirname | sort -u); do \
	  for f in $$(grep -hoE '^func Fuzz[A-Za-z]+' $$t/*_test.go | cut -c6-); do \
	    $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(or $(FOR),60s) ./$$t || exit 1; done; done

# Without --template-file, sam deploy uses the last output of sam build in .aws-sam, however old.
# MAX_CERTIFICATE_TTL=17520h checks the profiles against that value of the stack's parameter MaxCertificateTTL.
deploy: $(COMMAND) ## build for Lambda and run sam deploy --guided (ARCHITECTURE=x86_64: for that processor; needs an AWS account and the SAM CLI; sam build is not needed)
	@$(COMMAND) lint $(if $(MAX_CERTIFICATE_TTL),--max-certificate-ttl '$(MAX_CERTIFICATE_TTL)')
	GOOS=linux GOARCH=$(LAMBDA_GOARCH) $(MAKE) build-functions
	sam deploy --template-file template.yaml --guided --capabilities CAPABILITY_IAM

# The release is named by VERSION, or else by its commit. Sources without git need all three of NUMBER, COMMIT and SOURCE_DATE_EPOCH. The
# bytes depend on these, the sources and the version of Go alone: CONTRIBUTING.md, "CI and releases".
NUMBER            = $(or $(VERSION:v%=%),0.0.0-dev.g$(shell git rev-parse --short=12 HEAD)$(if $(COMMIT),,.dirty))
COMMIT            = $(shell git diff --quiet HEAD && git rev-parse HEAD)
SOURCE_DATE_EPOCH = $(shell git log -1 --format=%ct)
PLATFORMS        := linux/amd64 linux/arm64 darwin/amd64 darwin/arm64
release-snapshot: STAGE   := $(abspath $(BUILD_DIR)/stage)
release-snapshot: RELEASE  = v$(NUMBER)
release-snapshot: export GOFLAGS :=
release-snapshot: export GOAMD64 := v1
release-snapshot: export GOARM64 := v8.0
package: release-snapshot ## write the files of the release VERSION=v1.2.3, with notes from CHANGELOG.md

release-snapshot: ## write a release's files to build/release: functions, packages to deploy, vault-ec2, SBOM, provenance, checksums; publishes nothing
	@rm -rf $(STAGE) $(BUILD_DIR)/release && mkdir -p $(BUILD_DIR)/release
	$(if $(VERSION),@awk -v v='$(VERSION:v%=%)' '/^## /{on = index($$0, "## [" v "]") == 1; next} on' CHANGELOG.md > $(BUILD_DIR)/release-notes.md)
	$(if $(VERSION),@grep -q . $(BUILD_DIR)/release-notes.md || { echo 'CHANGELOG.md has no section "## [$(VERSION:v%=%)]"' >&2; exit 1; })
	$(if $(VERSION),@test -n '$(COMMIT)' || { echo 'the checkout differs from its commit: commit or remove the changes' >&2; exit 1; })
	@for a in arm64:arm64 x86_64:amd64; do \
	  GOOS=linux GOARCH=$${a#*:} $(MAKE) --no-print-directory build-functions BUILD_DIR=$(STAGE)/lambda/$${a%:*} ACCOUNTS_FILE= RELEASE=$(RELEASE) || exit 1; done
	@for p in $(PLATFORMS); do \
	  CGO_ENABLED=0 GOOS=$${p%/*} GOARCH=$${p#*/} $(GO) build $(BUILD_FLAGS) -o $(STAGE)/command/$${p%/*}-$${p#*/}/vault-ec2 ./infra/vault-ec2 || exit 1; done
	@$(HOST_GO) run $(BUILD_FLAGS) ./infra/release -stage $(STAGE) -out $(BUILD_DIR)/release -version '$(NUMBER)' -commit '$(COMMIT)' -epoch '$(SOURCE_DATE_EPOCH)' \
	  -flags "$(BUILD_FLAGS)"

clean: ## remove build; the cache stays (rm -r .cache)
	rm -rf build
