# Bare `make` tells what there is. Everything that is installed on the way goes into .cache.
.DEFAULT_GOAL := help
SHELL := /bin/bash

FUNCTIONS := provision deprovision reconcile
GO        ?= go
LAB       := infra/lab
BUILD_DIR := build
# Static and without the RPC mode of the old runtime: a smaller binary that starts on any host.
BUILD_FLAGS := -trimpath -tags lambda.norpc,nethttpomithttp2 -ldflags '-s -w'

# For make reconcile, teardown, doctor and render; set here so that nothing of the kind comes in from the environment.
MODE     := detect
INSTANCE :=
PROFILE  :=
FORCE    :=
STACK    :=
FACTS    :=
YES      :=

.PHONY: help build build-ProvisionFunction build-DeprovisionFunction build-ReconcileFunction test test-unit test-integration lint validate soak bench race demo lab reconcile teardown doctor render golden fuzz deploy clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## the functions, into build/<function>/bootstrap (GOARCH=arm64 make build for Lambda's arm64)
	@for f in $(FUNCTIONS); do \
	  CGO_ENABLED=0 $(GO) build $(BUILD_FLAGS) -o $(BUILD_DIR)/$$f/bootstrap ./functions/$$f || exit 1; done
	@CGO_ENABLED=0 GOOS= GOARCH= $(GO) build -trimpath -o $(BUILD_DIR)/vault-setup ./infra/vault

# What sam build calls for each function: template.yaml names this file as their build method.
build-ProvisionFunction build-DeprovisionFunction build-ReconcileFunction:
	@CGO_ENABLED=0 GOOS=linux GOARCH=arm64 $(GO) build $(BUILD_FLAGS) -o '$(or $(ARTIFACTS_DIR),$(error ARTIFACTS_DIR is not set: sam build calls this))/bootstrap' \
	  ./functions/$(shell echo '$(@:build-%Function=%)' | tr A-Z a-z)

test: test-unit validate test-integration ## everything: unit tests, template checks, integration tests on real parts

test-unit: ## the tests that need nothing but Go; the simulation once with the race detector and once in full
	$(GO) test -race -short ./...
	$(GO) test -count=1 ./internal/simulation -rapid.checks=$(or $(CHECKS),4000)

test-integration: build ## the tests against real Vault, moto, DynamoDB Local and the built binaries
	cd $(LAB) && $(GO) run ./cmd/lab prepare
	cd $(LAB) && $(GO) test -race -count=1 -timeout 25m $$($(GO) list ./... | grep -vE '/lab/(stack|bootstrap)$$')

lint: ## the linter, at its pinned version, over the product and the lab
	$(GO) tool -modfile=infra/tools/go.mod golangci-lint run ./...
	cd $(LAB) && $(GO) tool -modfile=../tools/go.mod golangci-lint run ./...

validate: ## all that is deployed, without an account: cfn-lint, the tests of the templates and of what prepares Vault
	cd $(LAB) && $(GO) run ./cmd/lab validate
	cd $(LAB) && $(GO) test -count=1 ./stack ./bootstrap

soak: build ## a fleet comes and goes in bad weather (FOR=30m INSTANCES=500); then all must agree
	@cd $(LAB) && $(GO) run ./cmd/lab soak -for $(or $(FOR),30m) -instances $(or $(INSTANCES),500)

bench: build ## launch storms, cold starts, comparing a fleet, the race for the first login: tables (FULL=true: 50,000 too; QUICK=1: only counts calls)
	@cd $(LAB) && $(GO) run ./cmd/bench $(if $(FULL),-full) $(if $(QUICK),-quick,&& $(GO) run ./cmd/lab race)

race: build ## how many instances log in at the first try, and how long the others wait, as a table
	@cd $(LAB) && $(GO) run ./cmd/lab race

demo: build ## one instance's whole life, told and checked in the terminal
	@cd $(LAB) && $(GO) run ./cmd/lab demo

lab: build ## the same world, left running for you to try things
	@cd $(LAB) && $(GO) run ./cmd/lab up

# A deployed stack tells its function's name by the AWS CLI, which finds account and region as it always does (its first
# version does not read AWS_REGION); a lab leaves name and address in .cache/lab.env while it runs.
ifneq ($(STACK),)
find-function = function=$$(aws cloudformation describe-stacks $${AWS_REGION:+--region $$AWS_REGION} --stack-name '$(STACK)' --output text \
    --query "Stacks[0].Outputs[?OutputKey=='ReconcileFunctionName'].OutputValue") || exit 2; \
  case "$$function" in ""|None) echo "stack $(STACK) has no output ReconcileFunctionName: deploy the present template" >&2; exit 2;; esac
else
find-function = [ -r .cache/lab.env ] || { echo "no lab is running: start one with make lab, or name a deployed stack with STACK=<name>" >&2; exit 2; }; \
  set -a; . .cache/lab.env; set +a; function=$$RECONCILE_FUNCTION
endif
ask = @CGO_ENABLED=0 GOOS= GOARCH= $(GO) build -trimpath -o build/vault-reconcile ./infra/reconcile || exit 2; $(find-function); \
  build/vault-reconcile -function "$$function"

reconcile: ## compare the fleet, MODE=correct repairs it (INSTANCE=i-… PROFILE=… FORCE=true); of make lab, or of STACK=<name>
	$(ask) -mode '$(MODE)' $(addprefix -instance ,$(INSTANCE)) $(if $(PROFILE),-profile '$(PROFILE)') $(if $(FORCE),-force='$(FORCE)')

teardown: ## remove all that a deployment made in Vault, of running instances too; asks for its name (YES=<name> answers); of make lab, or of STACK=<name>
	$(ask) -mode teardown $(if $(YES),-yes '$(YES)')

doctor: ## check all that the functions need; of make lab, or of STACK=<name>
	$(ask) -mode doctor

render: ## what a PROFILE would write to Vault, and what the guard says: for INSTANCE=i-… in EC2, FACTS=file.json, or a made-up one
	@$(GO) run ./infra/render $(addprefix -profile ,$(PROFILE)) $(addprefix -instance ,$(INSTANCE)) $(addprefix -facts ,$(FACTS))

golden: ## write what the profiles render, what the commands print, the user data of instances and the tables of docs/configuration.md
	$(GO) test ./templates ./infra/reconcile ./infra/render ./infra/instance ./internal/settings -update

fuzz: ## each fuzz target for a minute
	@for t in $$(grep -rlE '^func Fuzz' --include='*_test.go' internal | xargs -n1 dirname | sort -u); do \
	  for f in $$(grep -hoE '^func Fuzz[A-Za-z]+' $$t/*_test.go | cut -c6-); do \
	    $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime 60s ./$$t || exit 1; done; done

# Without its name, sam deploy takes what the last sam build left in .aws-sam, however old that is.
# An argument such as MAX_CERTIFICATE_TTL=17520h is for profiles that the stack's parameter MaxCertificateTTL lets in.
deploy: ## sam deploy --guided with binaries for arm64 (needs an AWS account and the SAM CLI; sam build is not needed)
	$(GO) run ./infra/render -check $(if $(MAX_CERTIFICATE_TTL),-max-certificate-ttl '$(MAX_CERTIFICATE_TTL)')
	GOOS=linux GOARCH=arm64 $(MAKE) build
	sam deploy --template-file template.yaml --guided --capabilities CAPABILITY_IAM

clean: ## what was built; the cache stays (rm -r .cache)
	rm -rf build
