# The agent as an image; docs/container.md says how to build, pin, run and check it.
# Any base of Debian with Python 3.11 or newer will do; only its Python and the libraries this needs go into the image.
# Pin it by digest: --build-arg BASE=python:3.13-slim-bookworm@sha256:...
ARG BASE=python:3.13-slim-bookworm

FROM ${BASE} AS build
# python-qpid-proton has no wheels and is compiled; a base with Debian's own Python lacks its headers and venv.
# None of these versions gets into the image but tini's, which its bill of materials names.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates gcc libc6-dev python3-dev python3-venv tini \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY requirements-build.lock requirements.lock ./
# pip's cache may be lent from outside; it stays in this stage.
# hadolint ignore=DL3042
RUN python3 -m venv /tools && /tools/bin/pip install --require-hashes -r requirements-build.lock
# pkg-config is made to find nothing, so that proton is built with its own SASL and without TLS, here as anywhere.
# hadolint ignore=DL3042
RUN PKG_CONFIG_LIBDIR=/nowhere /tools/bin/pip wheel --no-build-isolation --require-hashes \
    --wheel-dir /wheels -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY agent agent
COPY protocols protocols
COPY sim sim
COPY bench_profiles bench_profiles
COPY deploy/image deploy/image
# Which protocols' libraries are installed: extras of pyproject.toml, by comma.
ARG EXTRAS=all
RUN /tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && python3 -m venv --without-pip /opt/hilgate \
    && /tools/bin/pip --python /opt/hilgate/bin/python install --no-cache-dir --no-compile \
    --no-index --find-links /wheels "hilgate[${EXTRAS}]" \
    && python3 deploy/image/assemble.py /image \
    && python3 deploy/image/sbom.py --python --dpkg /image/var/lib/dpkg/status.d \
    --site "$(/opt/hilgate/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')" \
    --output /image/usr/share/hilgate/sbom.cdx.json

FROM scratch
COPY --from=build /image /
ENV PATH=/opt/hilgate/bin LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# Numeric, so that Kubernetes can see that it is not root.
USER 65532:65532
STOPSIGNAL SIGTERM
# Asks /livez where HILGATE_HTTP or /etc/hilgate/settings.yaml has `http`; see agent/health.py.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 CMD ["/opt/hilgate/bin/python", "-I", "-m", "agent.health"]
# Programs that a profile's hooks start may leave children behind: tini waits for them, the agent does not.
ENTRYPOINT ["/usr/bin/tini-static", "--", "/opt/hilgate/bin/hilgate"]
CMD ["run", "/etc/hilgate/profile.yaml", "--settings", "/etc/hilgate/settings.yaml"]
# Revision and date are given as `--label` (see `make image`): buildah takes a LABEL with arguments from an older layer.
LABEL org.opencontainers.image.title="hilgate" \
    org.opencontainers.image.description="Edge gateway between hardware-in-the-loop test benches and AMQP 1.0" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="0.1.0"
