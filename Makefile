# Bare `make` tells what there is. Everything that is installed on the way goes into .cache.
.DEFAULT_GOAL := help
SHELL := /bin/bash

FUNCTIONS := provision deprovision
GO        ?= go
LAB       := infra/lab
# Static and without the RPC mode of the old runtime: a smaller binary that starts on any host.
BUILD_FLAGS := -trimpath -tags lambda.norpc -ldflags '-s -w'

.PHONY: help build test test-unit test-integration lint validate demo lab golden fuzz deploy clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## the functions, into build/<function>/bootstrap (GOARCH=arm64 make build for Lambda's arm64)
	@for f in $(FUNCTIONS); do \
	  CGO_ENABLED=0 $(GO) build $(BUILD_FLAGS) -o build/$$f/bootstrap ./functions/$$f || exit 1; done
	@CGO_ENABLED=0 GOOS= GOARCH= $(GO) build -trimpath -o build/vault-setup ./infra/vault

test: test-unit validate test-integration ## everything: unit tests, template checks, integration tests on real parts

test-unit: ## the tests that need nothing but Go
	$(GO) test -race ./...

test-integration: build ## the tests against real Vault, moto, DynamoDB Local and the built binaries
	cd $(LAB) && $(GO) run ./cmd/lab prepare
	cd $(LAB) && $(GO) test -race -count=1 -timeout 25m ./...

lint: ## the linter, at its pinned version, over the product and the lab
	$(GO) tool -modfile=infra/tools/go.mod golangci-lint run ./...
	cd $(LAB) && $(GO) tool -modfile=../tools/go.mod golangci-lint run ./...

validate: ## template.yaml through cfn-lint, as SAM and expanded
	cd $(LAB) && $(GO) run ./cmd/lab validate

demo: build ## one instance's whole life, told and checked in the terminal
	@cd $(LAB) && $(GO) run ./cmd/lab demo

lab: build ## the same world, left running for you to try things
	@cd $(LAB) && $(GO) run ./cmd/lab up

golden: ## write what the profiles render into templates/testdata
	$(GO) test ./templates -update

fuzz: ## each fuzz target for a minute
	@for t in $$(grep -rlE '^func Fuzz' --include='*_test.go' internal | xargs -n1 dirname | sort -u); do \
	  for f in $$(grep -hoE '^func Fuzz[A-Za-z]+' $$t/*_test.go | cut -c6-); do \
	    $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime 60s ./$$t || exit 1; done; done

deploy: ## sam deploy --guided with binaries for arm64 (needs an AWS account and the SAM CLI)
	GOOS=linux GOARCH=arm64 $(MAKE) build
	sam deploy --guided --capabilities CAPABILITY_IAM

clean: ## what was built; the cache stays (rm -r .cache)
	rm -rf build
