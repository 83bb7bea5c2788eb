# birnn-serving in a container; deploy/README.md says how to build, run and deploy it.
#   docker build --target cpu -t birnn-serving:0.1.0 .
#   docker build --target gpu -t birnn-serving:0.1.0-gpu .
#
# BASE is any image with python3 >= 3.11 and its venv module. The gpu target takes CUDA and cuDNN from Python wheels, so
# the same slim base serves both; the host brings the NVIDIA driver.
ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS builder
# Where packages come from: these arguments, or a whole pip.conf as the build secret `pip_conf`. Neither is kept.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
RUN apt-get update && apt-get install --yes --no-install-recommends binutils && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
RUN python3 -m venv /opt/birnn
# Byte code that is valid whatever the time stamps of its sources: layers round them, and a start would compile anew what
# differs by a second, each time, as the root file system may be read-only.
ENV COMPILE="python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash"
WORKDIR /source

# Third-party packages only: the lists of `make lock` alone decide these layers, so that a change of source does not rebuild
# them. pip takes no file whose hash is not listed, and nothing that is not (--no-deps): the lists are complete but for
# left-out.in. What the server never loads then goes, or the build fails where that is no longer there.
FROM builder AS dependencies-cpu
COPY deploy/requirements/cpu.txt deploy/image/trim.py ./
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    /opt/birnn/bin/python -m pip install --no-compile --no-deps --require-hashes -r cpu.txt \
 && /opt/birnn/bin/python -m pip uninstall --yes pip setuptools \
 && /opt/birnn/bin/python -B trim.py /opt/birnn/lib/python3*/site-packages \
 && ${COMPILE} /opt/birnn/lib

FROM builder AS dependencies-gpu
COPY deploy/requirements/gpu.txt deploy/image/trim.py ./
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    /opt/birnn/bin/python -m pip install --no-compile --no-deps --require-hashes -r gpu.txt \
 && /opt/birnn/bin/python -m pip uninstall --yes pip setuptools \
 && /opt/birnn/bin/python -B trim.py /opt/birnn/lib/python3*/site-packages \
 && ${COMPILE} /opt/birnn/lib

# Our own packages, apart from the others: /opt/package is laid over /opt/birnn below.
FROM builder AS package
# For the native kernels and the gRPC front end; the compiler stays behind in this stage.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends g++ libnghttp2-dev pkg-config \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
COPY deploy/requirements/build.txt ./
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    /opt/birnn/bin/python -m pip install --no-compile --require-hashes -r build.txt
COPY pyproject.toml setup.py README.md LICENSE ./
COPY client client
COPY bulk bulk
COPY bundle bundle
COPY export export
COPY loadtest loadtest
COPY native native
COPY service service
# An image without kernels would serve, only slower; so here they are not optional.
RUN BIRNN_KERNELS=1 /opt/birnn/bin/python -m pip install --no-compile --no-deps --no-build-isolation --no-index \
      --prefix=/opt/package . \
 && ${COMPILE} /opt/package/lib

# Readable for the server's user, whatever the umask of the checkout.
FROM builder AS bundles
COPY models /models
RUN chmod -R a+rX /models

FROM ${BASE} AS runtime
ARG BASE
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="birnn-serving" \
      org.opencontainers.image.description="Serves bidirectional recurrent sequence encoders over gRPC and HTTP" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://git.example/birnn-serving" \
      org.opencontainers.image.documentation="https://git.example/birnn-serving/blob/main/deploy/README.md" \
      org.opencontainers.image.base.name="${BASE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# Variables rather than flags, so that `docker run IMAGE serve --device cuda` keeps them. birnn itself switches the
# telemetry of onnxruntime off; here it is off for whatever else is run in the image. What a container listens on is for
# its network to open, so it takes calls in the clear unless it is given a certificate: see docs/security.md.
ENV PATH=/opt/birnn/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    ORT_DISABLE_TELEMETRY=1 \
    BIRNN_HOST=0.0.0.0 \
    BIRNN_HTTP_PORT=8000 \
    BIRNN_INSECURE=true \
    GRPC_VERBOSITY=ERROR \
    BIRNN_MODELS=/models
# For --transport native.
RUN apt-get update && apt-get install --yes --no-install-recommends libnghttp2-14 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
WORKDIR /tmp
# By number: Kubernetes' runAsNonRoot cannot check a name.
USER 10001:10001
EXPOSE 8000 8001 8002
STOPSIGNAL SIGTERM
# The image format of OCI has no health checks: `buildah` and `podman` need --format docker to keep this one.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, ssl, urllib.request as r; tls = 'BIRNN_TLS_CERT' in os.environ; r.urlopen(f'http{\"s\" * tls}://127.0.0.1:' + os.environ.get('BIRNN_METRICS_PORT', '8002') + '/healthz', timeout=4, context=ssl._create_unverified_context() if tls else None)"]
ENTRYPOINT ["birnn"]
CMD ["serve"]

FROM runtime AS gpu
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=dependencies-gpu /opt/birnn /opt/birnn
COPY --from=package /opt/package /opt/birnn
COPY --from=bundles /models /models

# Last, so that a build without --target makes this one.
FROM runtime AS cpu
COPY --from=dependencies-cpu /opt/birnn /opt/birnn
COPY --from=package /opt/package /opt/birnn
COPY --from=bundles /models /models
