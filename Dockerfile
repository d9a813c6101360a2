# The agent as an image: podman build -t hilgate . && podman run --rm hilgate demo --for 10s
# Any base with Python 3.11 or newer will do: the same for building and for running.
ARG BASE=docker.io/library/python:3.13-slim

FROM ${BASE} AS build
# python-qpid-proton has no wheels and is compiled; a base with Debian's own Python lacks its headers and venv.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev python3-dev python3-venv
WORKDIR /src
COPY requirements-build.lock requirements.lock ./
RUN python3 -m venv /tools && /tools/bin/pip install --no-cache-dir --require-hashes -r requirements-build.lock
# pkg-config is made to find nothing, so that proton is built with its own SASL and without TLS, here as anywhere.
RUN PKG_CONFIG_LIBDIR=/nowhere /tools/bin/pip wheel --no-cache-dir --no-build-isolation --require-hashes \
    --wheel-dir /wheels -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY agent agent
COPY protocols protocols
COPY sim sim
COPY bench_profiles bench_profiles
RUN /tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels .
RUN python3 -m venv --without-pip /opt/hilgate \
    && /tools/bin/pip --python /opt/hilgate/bin/python install --no-index --no-deps --no-cache-dir /wheels/*.whl

FROM ${BASE}
COPY --from=build /opt/hilgate /opt/hilgate
# Numeric, so that Kubernetes can see that it is not root.
USER 65532:65532
ENTRYPOINT ["/opt/hilgate/bin/hilgate"]
