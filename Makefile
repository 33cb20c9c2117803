# Bulwark's commands. `make help` lists them.
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
# A folder or tar.xz with a copy of the Go vulnerability database, for machines without internet.
VULNDB  ?=
FUZZTIME ?= 20s
BENCHTIME ?= 20s

export GOFLAGS := -mod=readonly -buildvcs=false
BUILD   := CGO_ENABLED=0 $(GO) build -trimpath -ldflags "-s -w -X main.built=$(VERSION)"
TARGETS := linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64

.PHONY: help build run test race lint vuln fuzz bench e2e cross release clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

build: ## build the static binary bin/bulwark
	$(BUILD) -o bin/bulwark ./cmd/bulwark

run: build ## build, then run a node with a demo project on https://localhost:8443
	bin/bulwark serve --demo

test: ## run the tests
	$(GO) test -timeout 10m ./...

race: ## run the tests under the race detector
	CGO_ENABLED=1 $(GO) test -race -short -timeout 20m ./...

lint: vuln ## check format, vet, staticcheck, modules, known vulnerabilities
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo "gofmt: the files above want formatting"; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags e2e ./node/e2e
	$(GO) tool staticcheck ./...
	$(GO) mod verify
	$(GO) mod tidy -diff

vuln:
ifeq ($(VULNDB),)
	@echo "vuln: skipped, there is no VULNDB=FOLDER with the Go vulnerability database"
else
	.ci/vuln "$(VULNDB)"
endif

fuzz: ## run each fuzzer for FUZZTIME (20s)
	.ci/fuzz $(FUZZTIME)

bench: build ## measure the node beside etcd and a bare handler; writes the README's table
	.ci/bench $(BENCHTIME)

e2e: build ## run the README's example and the outside tests against bin/bulwark
	cd node/e2e && npm ci --no-audit --no-fund --loglevel=error
	$(GO) test -tags e2e -count=1 -timeout 20m -v ./node/e2e

cross: ## build for every platform
	@set -e; for t in $(TARGETS); do echo "building $$t"; \
	  GOOS=$${t%/*} GOARCH=$${t#*/} $(BUILD) -o dist/bulwark-$${t%/*}-$${t#*/}$$(test $${t%/*} = windows && echo .exe || true) ./cmd/bulwark; done

release: cross ## build for every platform into dist/, with checksums
	cd dist && sha256sum bulwark-* > SHA256SUMS && cat SHA256SUMS

clean: ## remove what the commands above made
	rm -rf bin dist node/e2e/node_modules
