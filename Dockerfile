# Images for cluster.yaml and docs/rayjob.yaml, with every command of dpt:
#
#   docker build --target cuda -t REGISTRY/dpt:2.60.0-py311-gpu .
#   docker build --target cpu  -t REGISTRY/dpt:2.60.0-py311-cpu .
#
# Ray and Python of the tag are those of constraints.txt: every node must run the same. A job that is submitted
# with its working directory runs that code, not the image's.
ARG RAY=2.60.0-py311

FROM rayproject/ray:${RAY}-cpu AS wheel
COPY --chown=ray . /tmp/source
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /tmp/wheels /tmp/source

FROM rayproject/ray:${RAY}-cpu AS cpu
COPY --from=wheel --chown=ray /tmp/wheels/ /tmp/source/constraints.txt /tmp/dpt/
RUN pip install --no-cache-dir -c /tmp/dpt/constraints.txt "$(echo /tmp/dpt/*.whl)[all]" && dpt --version

# PyTorch brings its own CUDA libraries; of the machine it needs the driver, which the container runtime mounts.
FROM rayproject/ray:${RAY}-gpu AS cuda
COPY --from=wheel --chown=ray /tmp/wheels/ /tmp/source/constraints.txt /tmp/dpt/
RUN pip install --no-cache-dir -c /tmp/dpt/constraints.txt "$(echo /tmp/dpt/*.whl)[all]" && dpt --version
